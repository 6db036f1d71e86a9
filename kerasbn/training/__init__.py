"""What training needs of a rewritten model: its compiled state and its optimizer."""
