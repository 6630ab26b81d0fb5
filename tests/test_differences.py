"""Arms against the full loop: verdicts and the table of approaches, checked by hand."""

from rstar_nb.evolve.differences import approaches, differences


def arm(name, seed, policy, coverage=0.5, n=400):
    return dict(
        arm=name,
        seed=seed,
        n=n,
        policy=policy,
        coverage=[None, coverage],
        tokens=2500,
        cpu_minutes=1.5,
    )


def test_a_verdict_needs_every_seed_beyond_its_half_width_with_the_same_sign():
    rows = [
        arm("full", 0, [0.4, 0.7]),
        arm("full", 1, [0.4, 0.72]),
        arm("harmed", 0, [0.4, 0.5]),
        arm("harmed", 1, [0.4, 0.6]),
        arm("better", 0, [0.4, 0.9]),
        arm("better", 1, [0.4, 0.85]),
        arm("once", 0, [0.4, 0.5]),
        arm("once", 1, [0.4, 0.71]),
        arm("torn", 0, [0.4, 0.5]),
        arm("torn", 1, [0.4, 0.9]),
        arm("alone", 0, [0.4, 0.1]),
    ]
    by_arm = {d["arm"]: d for d in differences(rows)}
    assert {name: d["verdict"] for name, d in by_arm.items()} == dict(
        harmed="worse",
        better="better",
        once="not told apart",
        torn="not told apart",
        alone="one seed",
    )
    assert by_arm["harmed"]["seeds"][0] == dict(
        seed=0, points=-20.0, half=6.6, coverage=0.0
    )  # 1.96 * sqrt(.5 * .5 / 400 + .7 * .3 / 400) = .0664
    assert "full" not in by_arm


def test_the_comparison_has_what_was_measured():
    rows = [arm("full", 0, [0.4, 0.7]), arm("gold", 0, [0.4, 0.9])]
    best = dict(strategy="majority", budget=900, accuracy=0.8, n=120, tokens=dict(generated=901.0))
    base = [dict(best, budget=100, accuracy=0.1), dict(best, accuracy=0.5)]
    curves = dict(rounds=[dict(round=0, results=base), dict(round=4, results=[best])])
    text = {r["approach"]: "; ".join(r["measured"]) for r in approaches(rows, curves)}
    assert text["self-evolution"] == "70.0 %, 2k tokens written, 1.5 CPU min"
    assert text["the base alone"] == "40.0 %"
    of_base = text["best of N samples of the base (vote)"]
    assert of_base.startswith("50.0 % with 901") and "round 0" in of_base
    evolved = text["best of N samples of the evolved policy (vote)"]
    assert evolved.startswith("80.0 % with 901") and "round 4" in evolved
