"""The commands' work, step by step: what joins the rooms, without a word to the terminal."""
