"""The passes, in their order: each proposes edits and skips, and changes nothing."""
