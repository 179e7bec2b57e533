"""What the paper's own tables can tell: KPOD against the best other method, with the chance of the test problems.

``python benchmarks/audit.py`` prints the table of docs/studies.md as Markdown.
"""

from scipy.stats import norm

from kpod_lightning.evaluation.comparison import holm
from kpod_lightning.runs.published import OURS, Gap, gaps

LEVEL = 0.05


def main() -> None:
    found = gaps()
    p_values = [2.0 * float(norm.sf(abs(gap.z))) for gap in found]
    print("| student, data set (problems) | best other | its %, 95 % interval | KPOD | gap, points | z | p | p, Holm |")
    print("|---|---|---|---|---|---|---|---|")
    for gap, p, adjusted in zip(found, p_values, holm(p_values), strict=True):
        cells = [
            f"{gap.student}, {gap.dataset} ({gap.problems})",
            gap.best,
            with_interval(gap, gap.best, gap.of_best),
            with_interval(gap, OURS, gap.of_kpod),
            f"{100 * gap.difference:+.2f}",
            f"{gap.z:.2f}",
            f"{p:.2g}",
            f"{adjusted:.2g}",
        ]
        print(f"| {' | '.join(cells)} |")
    print(f"\n{sum(p < LEVEL for p in p_values)} of {len(found)} gaps pass |z| = {norm.isf(LEVEL / 2):.2f}; ", end="")
    print(f"with Holm's correction {sum(p < LEVEL for p in holm(p_values))}.")


def with_interval(gap: Gap, method: str, share: float) -> str:
    low, high = gap.interval(method)
    return f"{100 * share:.2f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
