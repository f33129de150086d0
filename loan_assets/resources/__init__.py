"""One door per outside system, each handing out plain objects; heavy vendors wait inside functions."""
