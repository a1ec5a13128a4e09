"""PersonaGym (Samuel et al., 2024, arXiv 2407.18416): do a policy's answers fit their personas?

benchmark and download read questions and rubrics, subsets takes fewer, answering asks the policy,
answers is the file between answering and judging, judging asks the judges, scores turns what they
say into numbers and tables_of_scores into a table.
"""
