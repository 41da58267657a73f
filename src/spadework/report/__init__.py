"""What people look at: heat maps over pictures, explanations, and the HTML report."""

from __future__ import annotations

from spadework.report.html import write_report
from spadework.report.pictures import data_uri, heat_range, outline, overlay

__all__ = ["data_uri", "heat_range", "outline", "overlay", "write_report"]
