"""Writes docs/settings.md from the definitions."""

from pathlib import Path

from infra.settings import render_page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

if __name__ == "__main__":
    PAGE.write_text(render_page())
