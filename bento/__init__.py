"""The serving box: a BentoML service around one verified release. It carries the book and never the platform."""
