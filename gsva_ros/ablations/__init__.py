"""The paper's claims at gsva-mini's scale: rows that differ in one thing, trained and scored alike."""
