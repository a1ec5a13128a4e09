"""Reports: run, evaluation and comparison gather what there is to say as plain data, which write
renders as report.json, report.md and report.html."""
