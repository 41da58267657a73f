"""The rehearsal: which settings find defects that were planted on normal pictures."""
