"""How good the cascade is: metrics, confidence intervals, detection of tumors and figures."""
