"""`cascade predict`: inputs → masks, overlays, tables and a report."""
