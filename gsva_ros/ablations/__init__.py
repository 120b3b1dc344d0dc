"""The paper's claims at gsva-mini's scale: variants (rows) trained and scored under the same conditions."""
