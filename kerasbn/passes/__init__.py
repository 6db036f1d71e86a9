"""The passes: each looks at a graph and proposes edits and skips, and changes nothing."""
