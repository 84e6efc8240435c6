"""Sections of reports, one file a task."""

from model_compression.reports.sections import classification as classification  # which registers itself
from model_compression.reports.sections import embedding as embedding
from model_compression.reports.sections import multi_label as multi_label
from model_compression.reports.sections import regression as regression
from model_compression.reports.sections import segmentation as segmentation
from model_compression.reports.sections import texts as texts
from model_compression.reports.sections.base import SECTIONS, Description, Findings, Section, section_named, section_of

__all__ = ["SECTIONS", "Description", "Findings", "Section", "section_named", "section_of"]
