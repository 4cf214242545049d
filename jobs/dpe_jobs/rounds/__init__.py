"""What several rounds of the spiral brought, from their artifacts: run.html."""
