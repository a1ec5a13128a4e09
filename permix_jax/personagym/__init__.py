"""PersonaGym (Samuel et al., 2024, arXiv 2407.18416): do a policy's answers fit their personas?"""
