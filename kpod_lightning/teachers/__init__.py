"""Who writes rationales: a file a kind, and what all of them share.

prompts (what is asked) and prices → requests (which samples are wanted) → estimates → sample_file (what there is, what
it cost) → writing (a reply becomes a row) → one file a kind of teacher; quality, page and merge look at what these
wrote.
"""
