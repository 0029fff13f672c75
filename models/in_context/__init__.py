"""Reranking in context: an LLM reads the candidates, and relevance is read from its attention.

BlockRank (Gupta et al., "Scalable In-context Ranking with Generative Models", arXiv 2510.05396, 2025): a
prompt is an instruction, documents and a question. A document sees the instruction and itself, the question
sees everything, and at one middle layer the question's attention says which documents are relevant.
"""
