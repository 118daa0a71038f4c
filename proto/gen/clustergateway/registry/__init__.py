"""Generated messages; never edited by hand."""
