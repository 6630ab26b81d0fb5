"""Wrong submissions of the labs: (name, {grade_id: code in place of the solution}, its hint).

The hint is a piece of the one that the checks must print. `test_labs.py` has the marks.
"""

# -- lab 1 ------------------------------------------------------------------------------------

SCORE = """
total = {total}
scores = []
for n in children:
    q = {q}
    scores.append(q + c * n["prior"] * sqrt(max(total, 1)) / (1 + {tried}))
return scores
"""
MEAN = 'n["value_sum"] / n["node_visits"] if n["node_visits"] else 0.0'
BOTH = 'sum(n["node_visits"] + n["pending"] for n in children)'
VISITS = 'sum(n["node_visits"] for n in children)'
TRIED = 'n["node_visits"] + n["pending"]'
LAB_1 = [
    (
        "pending forgotten",
        {"puct_pending": SCORE.format(total=VISITS, q=MEAN, tried='n["node_visits"]')},
        "appear nowhere",
    ),
    (
        "only the child",
        {"puct_pending": SCORE.format(total=VISITS, q=MEAN, tried=TRIED)},
        "not those among the parent's visits",
    ),
    (
        "virtual loss",
        {
            "puct_pending": SCORE.format(
                total=BOTH, q='(n["value_sum"] - n["pending"]) / max(tried(n), 1)', tried=TRIED
            ).replace("scores = []", "scores = []\n\ndef tried(n):\n    return " + TRIED + "\n")
        },
        "one that was lost",
    ),
    (
        "division by zero",
        {
            "puct_pending": SCORE.format(
                total=BOTH, q='n["value_sum"] / n["node_visits"]', tried=TRIED
            )
        },
        "let its Q be 0",
    ),
    (
        "copied from the package",
        {
            "puct_pending": f"""
from rstar_nb.search.ucb import puct

total = {VISITS}
return [puct({MEAN}, n["node_visits"], total, n["prior"], c) for n in children]
"""
        },
        "appear nowhere",
    ),
    (
        "the k best",
        {
            "send_workers": """
scores = rule(children)
return sorted(range(len(children)), key=lambda i: -scores[i])[:workers]
"""
        },
        "score again after each worker",
    ),
    (
        "changes the children",
        {
            "send_workers": """
sent = []
for _ in range(workers):
    scores = rule(children)
    sent.append(scores.index(max(scores)))
    children[sent[-1]]["pending"] += 1
return sent
"""
        },
        "Work on copies",
    ),
]

# -- lab 2 ------------------------------------------------------------------------------------

SELECT = """
path = [0]
while children := children_of(tree, path[-1]):
    total = sum(tree[i]["node_visits"] for i in children)
    scores = []
    for n in (tree[i] for i in children):
        visits = n["node_visits"]
        {score}
    path.append(children[scores.index(max(scores))])
return path
"""
BACKUP = """
for distance, i in enumerate({path}):
    tree[i]["node_visits"] += 1
    tree[i]["value_sum"] {value}
return tree
"""
LAB_2 = [
    (
        "an unvisited child scores 0",
        {
            "select": SELECT.format(
                score="scores.append(n['value_sum'] / visits"
                " + c * math.sqrt(math.log(total) / visits) if visits else 0)"
            )
        },
        "with a score of 0",
    ),
    (
        "greedy",
        {"select": SELECT.format(score="scores.append(n['value_sum'] / visits if visits else 0)")},
        "the bonus for what has been tried little is missing",
    ),
    (
        "counted from the root",
        {"backup": BACKUP.format(path="path", value="+= reward * gamma**distance")},
        "count from the end",
    ),
    (
        "root missed",
        {"backup": BACKUP.format(path="reversed(path[1:])", value="+= reward * gamma**distance")},
        "the root is on every path",
    ),
    (
        "rewards overwritten",
        {"backup": BACKUP.format(path="reversed(path)", value="= reward * gamma**distance")},
        "it is a sum over all rollouts",
    ),
    (
        "copied from the package: no discount",
        {"backup": BACKUP.format(path="path", value="+= reward")},
        "gamma is not used",
    ),
    (
        "one child",
        {
            "simulation": """
path = select(tree)
while isinstance(proposed := world[steps_of(tree, path)], list):
    path.append(add_child(tree, path[-1], proposed[0]))
return backup(tree, path, proposed)
"""
        },
        "expansion adds every proposed step",
    ),
]

# -- lab 3 ------------------------------------------------------------------------------------

MENDED = """
for i in {path}:
    n = tree[i]
    n["node_visits"] += 1
    n["value_sum"] += {value}
    n["best"] = {best}
return tree
"""
BEST = 'reward if n["best"] is None else max(n["best"], reward)'
BROKEN = """
found = []
for i, n in enumerate(tree):
    children = [m for m in tree if m["parent"] == i]
    rewards = {rewards}
    bests = rewards + [m["best"] for m in children if m["best"] is not None]
    {best}
    if n["node_visits"] != sum(m["node_visits"] for m in children) + len(rewards):
        found.append((i, "node_visits"))
    if n["value_sum"] != sum(m["value_sum"] for m in children) + sum(rewards):
        found.append((i, "value_sum"))
return found
"""
LAB_3 = [
    (
        "nothing mended",
        {"backup": "return buggy_backup(tree, path, reward)"},
        "all three bugs are still there",
    ),
    (
        "the root left out",
        {"backup": MENDED.format(path="path[1:]", value="reward", best=BEST)},
        "where does the loop start",
    ),
    (
        "the mean left in",
        {"backup": MENDED.format(path="path", value='reward / n["node_visits"]', best=BEST)},
        "value_sum is a sum of rewards",
    ),
    (
        "the zero left in",
        {"backup": MENDED.format(path="path", value="reward", best='max(n["best"] or 0, reward)')},
        "its best is -1, not 0",
    ),
    (
        "nothing ends inside",
        {
            "broken": BROKEN.format(
                rewards="[]",
                best='if n["best"] != max(bests, default=None):\n        found.append((i, "best"))',
            )
        },
        "a rollout may end at any node",
    ),
    (
        "no invariant for best",
        {
            "broken": BROKEN.format(
                rewards="[reward for place, reward in ended if place == i]", best="pass"
            )
        },
        "`best` has an invariant, too",
    ),
]

# -- lab 4 ------------------------------------------------------------------------------------

LAB_4 = [
    (
        "everything is denied",
        {
            "predicted": """
everything = dict.fromkeys(("read", "network", "fork", "limit"), "denied")
predicted = dict.fromkeys(("namespaces", "landlock", "seccomp"), everything)
"""
        },
        "Landlock rules over paths and ports",
    ),
    (
        "greedy cover",
        {
            "fewest_layers": """
left, chosen = set(attempts), []
while left:
    best = max(sorted(denies), key=lambda name: len(left & set(denies[name])), default=None)
    if best is None or not left & set(denies[best]):
        return "impossible"
    chosen.append(best)
    left -= set(denies[best])
return sorted(chosen)
"""
        },
        "can end with one too many",
    ),
    (
        "every layer that helps",
        {
            "fewest_layers": """
return sorted(name for name in denies if set(denies[name]) & set(attempts))
"""
        },
        "the task is the fewest",
    ),
    (
        "an error is not caught",
        {"program": "program = \"open('/etc/passwd').read()\\nanswer = True\""},
        "catch it",
    ),
    (
        "only PermissionError",
        {
            "program": '''
program = """
try:
    open("/etc/passwd").read()
    answer = True
except PermissionError:
    answer = False
"""
'''
        },
        "catch OSError",
    ),
    (
        "does not try",
        {"program": 'program = "answer = False"'},
        "does not try",
    ),
]

# -- lab 5 ------------------------------------------------------------------------------------

STEP = """
def mean(n):
    return n["value_sum"] / n["node_visits"]

children = [n for n in siblings if {which}]
good = [n for n in children if n["right"]]
bad = [n for n in children if n["wrong"] {bad}]
good = sorted(good, key=lambda n: {good_key})[:2]
bad = sorted(bad, key=lambda n: {bad_key})[:2]
return [(g["step"], b["step"]) for g in good for b in bad if {close}]
"""
STEP_PARTS = dict(
    which='n["node_visits"] and not n["ends"]',
    bad='and not n["right"]',
    good_key='(-mean(n), -n["node_visits"])',
    bad_key='(mean(n), -n["node_visits"])',
    close="mean(g) - mean(b) >= margin",
)
FINAL = """
good = sorted((p for p in programs if p["correct"]), key=lambda p: -p["average_q"])[:2]
bad = sorted((p for p in programs if {wrong}), key=lambda p: p["average_q"])
kept = {{}}
for place, p in enumerate(bad):
    kept.setdefault({key}, p)
return [(g["text"], b["text"]) for g in good for b in list(kept.values())[:2]]
"""
LOSS = """
import math

def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

differences = [{difference} for b, w in zip(better, worse)]
losses = [(1 - {share}) * softplus(-d) + {share} * softplus(d) for d in differences]
return sum(losses) / {count}
"""
LOSS_PARTS = dict(difference="b - w", share="flipped", count="len(losses)")
LAB_5 = [
    (
        "ties by place",
        {"step_pairs": STEP.format(**STEP_PARTS | dict(good_key="-mean(n)", bad_key="mean(n)"))},
        "its mean is surer",
    ),
    (
        "no margin",
        {"step_pairs": STEP.format(**STEP_PARTS | dict(close="True"))},
        "closer than the margin",
    ),
    (
        "last steps included",
        {"step_pairs": STEP.format(**STEP_PARTS | dict(which='n["node_visits"]'))},
        "whole programs have pairs of their own",
    ),
    (
        "one wrong answer twice",
        {"final_pairs": FINAL.format(wrong='p["correct"] is False', key="place")},
        "take the next answer",
    ),
    (
        "unchecked is wrong",
        {"final_pairs": FINAL.format(wrong='not p["correct"]', key='p["answer"]')},
        "nobody has checked",
    ),
    (
        "the wrong way round",
        {"pairwise_loss": LOSS.format(**LOSS_PARTS | dict(difference="w - b"))},
        "look at the sign",
    ),
    (
        "copied from the package: nothing flipped",
        {"pairwise_loss": LOSS.format(**LOSS_PARTS | dict(share="0"))},
        "`flipped` is not used",
    ),
]

# -- lab 6 ------------------------------------------------------------------------------------

WEIGHTS = """
weight = dict(question={question}, comment={comment}, code=1.0, pad={pad})
return {places}
"""
WEIGHT_PARTS = dict(
    question="0.0",
    comment="float(comment)",
    pad="0.0",
    places="[weight[kind] for _, kind in row[1:]] + [0.0]",
)
WEIGHTED = """
pairs = [(p, w) for a, b in zip(logprobs, weights) for p, w in zip(a, b) if w]
{below}
return -sum(w * p for p, w in pairs) / below if below else 0.0
"""
LAB_6 = [
    (
        "shifted by one",
        {
            "token_weights": WEIGHTS.format(
                **WEIGHT_PARTS | dict(places="[weight[kind] for _, kind in row]")
            )
        },
        "one place too far to the right",
    ),
    (
        "question included",
        {"token_weights": WEIGHTS.format(**WEIGHT_PARTS | dict(question="1.0"))},
        "the question is given",
    ),
    (
        "padding included",
        {"token_weights": WEIGHTS.format(**WEIGHT_PARTS | dict(pad="1.0"))},
        "padding is there to fill the batch",
    ),
    (
        "copied from the package: comments in full",
        {"token_weights": WEIGHTS.format(**WEIGHT_PARTS | dict(comment="1.0"))},
        "counts `comment`",
    ),
    (
        "mean of means",
        {
            "weighted_loss": """
means = []
for a, b in zip(logprobs, weights):
    if any(b):
        means.append(-sum(w * p for p, w in zip(a, b) if w) / sum(b))
return sum(means) / len(means) if means else 0.0
"""
        },
        "average the rows' means",
    ),
    (
        "counted places",
        {"weighted_loss": WEIGHTED.format(below="below = len(pairs)")},
        "half a token below the line",
    ),
    (
        "zero times infinity",
        {
            "weighted_loss": """
pairs = [(p, w) for a, b in zip(logprobs, weights) for p, w in zip(a, b)]
below = sum(w for _, w in pairs)
return -sum(w * p for p, w in pairs) / (below or 1)
"""
        },
        "0 times -inf is nan",
    ),
]

# -- lab 7 ------------------------------------------------------------------------------------

DIFFERENCE = """
p0 = before["correct"] / before["n"]
p1 = after["correct"] / after["n"]
v0 = p0 * (1 - p0) / before["n"]
v1 = p1 * (1 - p1) / after["n"]
return p1 - p0, {half}
"""
FORECAST = """
{floor}
left = [e - floor for e in errors]
r = {factor}
return [floor + left[-1] * r**k for k in range(1, rounds + 1)]
"""
GEOMETRIC = "(left[-1] / left[0]) ** (1 / (len(left) - 1))"
LAB_7 = [
    (
        "half widths added",
        {"difference": DIFFERENCE.format(half="1.96 * (sqrt(v0) + sqrt(v1))")},
        "variances add, not widths",
    ),
    (
        "standard error",
        {"difference": DIFFERENCE.format(half="sqrt(v0 + v1)")},
        "one standard deviation",
    ),
    (
        "straight line",
        {
            "forecast": """
step = (errors[-1] - errors[0]) / (len(errors) - 1)
return [errors[-1] + step * k for k in range(1, rounds + 1)]
"""
        },
        "the same number of points a round",
    ),
    (
        "floor forgotten",
        {"forecast": FORECAST.format(floor="floor = 0.0", factor=GEOMETRIC)},
        "`floor` can never be learnt",
    ),
    (
        "last ratio only",
        {"forecast": FORECAST.format(floor="", factor="left[-1] / left[-2]")},
        "its last two rounds",
    ),
    (
        "each level by itself",
        {
            "level_gains": """
return {
    level: after[level][0] / after[level][1] - before[level][0] / before[level][1]
    for level in after
}
"""
        },
        "times its share of the problems",
    ),
]

WRONG = {
    "1_ucb": LAB_1,
    "2_simulation": LAB_2,
    "3_bug_hunt": LAB_3,
    "4_escape_room": LAB_4,
    "5_pairs": LAB_5,
    "6_sft_mask": LAB_6,
    "7_read_a_run": LAB_7,
}
