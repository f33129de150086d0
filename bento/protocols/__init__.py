"""How a scoring request is worded: the lender's own form, KServe V1, Open Inference V2. No file imports another."""
