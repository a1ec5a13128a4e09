"""PersonaGym (Samuel et al., 2024, arXiv 2407.18416): do a policy's answers fit their personas?

benchmark and download read questions and rubrics, subsets takes fewer, answering asks the policy,
answers is the file between answering and judging, judging asks the judges, summary turns their
scores into numbers and overview into a table.
"""
