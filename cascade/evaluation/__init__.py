"""The parts of `cascade.evaluate`: formulas, confidence intervals, summary, table and figures."""
