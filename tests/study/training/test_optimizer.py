"""Optimizer conventions of the paper's code base, each with a step worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from study.config import (
    Adafactor,
    Adam,
    Lion,
    MeanPoolText,
    Model,
    ParamGroup,
    ViT,
)
from study.config.model import Vocabulary
from study.config.schedule import schedule
from study.training.optimizer import (
    clip_by_global_norm,
    drop_frozen,
    global_norm,
    optimizer,
    scale_by_adafactor,
)
from study.training.step import initial_state
from tests.study.training.optimizer_steps import GRADS, PARAMS, cell, updates

# --- decay ---------------------------------------------------------------------------------------


def test_weight_decay_is_on_kernels_only_and_not_times_the_learning_rate():
    plain, decayed = updates(cell(), GRADS), updates(cell(weight_decay=0.01), GRADS)
    difference = jax.tree.map(lambda a, b: b - a, plain, decayed)
    np.testing.assert_allclose(difference["img"]["head"]["kernel"], [[-0.04]], rtol=1e-5)
    np.testing.assert_allclose(difference["txt"]["kernel"], [[-0.02, 0.01]], rtol=1e-5)
    np.testing.assert_array_equal(difference["txt"]["bias"], [0])
    np.testing.assert_array_equal(difference["t"], [0])


def test_the_schedule_scales_the_decay_too():
    update = updates(cell(weight_decay=0.01, warmup_steps=10), GRADS)
    assert float(jnp.abs(update["txt"]["kernel"]).max()) == 0


# --- one step of each rule -----------------------------------------------------------------------


def test_two_adam_steps_by_hand():
    """b1 = .9, b2 = .5, gradients 1 then 3: m = .39 / .19, v = 4.75 / .75."""
    grads = (GRADS, jax.tree.map(lambda g: 3 * g, GRADS))
    update = updates(cell(b1=0.9, b2=0.5), *grads)
    by_hand = -0.1 * 2.0526316 / 2.5166115
    np.testing.assert_allclose(update["t"], [by_hand], rtol=1e-5)


def test_two_lion_steps_by_hand():
    """b1 = .9, b2 = .5: after a gradient of 1, m = .5; then .9 * .5 - .1 * 4 = .05 is positive."""
    grads = (GRADS, jax.tree.map(lambda g: -4 * g, GRADS))
    np.testing.assert_allclose(updates(cell(Lion, b1=0.9, b2=0.5), *grads)["t"], [-0.1])
    grads = (GRADS, jax.tree.map(lambda g: -5 * g, GRADS))
    np.testing.assert_allclose(updates(cell(Lion, b1=0.9, b2=0.5), *grads)["t"], [0.1])


def test_adafactor_begins_with_the_sign_and_an_average_that_is_not_debiased():
    """At step 0 the second moment is the squared gradient; the average keeps a tenth of +-1."""
    grads = GRADS | {"t": jnp.array([-7.0])}
    np.testing.assert_allclose(updates(cell(Adafactor), grads)["t"], [0.01], rtol=1e-6)


def test_adafactors_second_step_by_hand():
    """Gradients 1, 3. b2 at step 1 is 1 - 2 ** -0.8 = 0.425651: v = 0.425651 + 0.574349 * 9.

    The average is 0.9 * 0.1 in bfloat16, which is 0.08984375 (23 / 256), + 0.1 * 3 / sqrt(v).
    """
    grads = (GRADS, jax.tree.map(lambda g: 3 * g, GRADS))
    by_hand = -0.1 * (23 / 256 + 0.1 * 3 / math.sqrt(5.594792))
    np.testing.assert_allclose(updates(cell(Adafactor), *grads)["t"], [by_hand], rtol=2e-6)


def test_adafactors_b2_is_a_cap():
    """At step 1 the cap 0.25 is below 0.425651: v = 0.25 + 0.75 * 9 = 7."""
    grads = (GRADS, jax.tree.map(lambda g: 3 * g, GRADS))
    update = updates(cell(Adafactor, b2=0.25, b1=0.0), *grads)
    np.testing.assert_allclose(update["t"], [-0.1 * 3 / math.sqrt(7)], rtol=1e-6)


def test_adafactor_is_the_papers_by_default():
    """App. A: beta1 0.9, beta2 0.95, learning rate 0.001, weight decay 0.0001, cosine."""
    o = Adafactor()
    assert (o.b1, o.b2, o.learning_rate, o.weight_decay) == (0.9, 0.95, 1e-3, 1e-4)
    assert (o.schedule, o.min_dim_size_to_factor, o.eps) == ("cosine", 32, 1e-30)
    assert o.clip_block_rms is None


@pytest.mark.parametrize(("width", "factored"), [(31, False), (32, True)])
def test_adafactor_factors_from_32_on(width, factored):
    """Squared gradients 4 in row 0 and 1 elsewhere are of rank one, so factors are exact.

    With one more 4 at (1, 1) they are not: unfactored, every scaled gradient is 1 all the same.
    """
    g = np.ones((32, width), np.float32)
    g[0] = 2
    params = {"txt": {"kernel": jnp.ones((32, width))}}
    c = cell(Adafactor, b1=0.0, learning_rate=1.0)

    def scaled(g):
        return np.asarray(
            -updates(c, {"txt": {"kernel": jnp.array(g)}}, params=params)["txt"]["kernel"]
        )

    np.testing.assert_allclose(scaled(g), 1, rtol=1e-5)
    g[1, 1] = 2
    if not factored:
        np.testing.assert_allclose(scaled(g), 1, rtol=1e-5)
        return
    # Row 1 has mean square 35 / 32, column 1 has 38 / 32, all have (4 * 32 + 31 * 32 + 3) / 1024.
    estimate = (35 / 32) * (38 / 32) / (1123 / 1024)
    np.testing.assert_allclose(scaled(g)[1, 1], 2 / math.sqrt(estimate), rtol=1e-5)


def test_adafactor_keeps_its_average_in_bfloat16_and_factors_instead_of_a_matrix():
    params = {"txt": {"kernel": jnp.ones((64, 48))}}
    leaves = jax.tree.leaves(optimizer(cell(Adafactor)).init(params))
    assert sorted(leaf.shape for leaf in leaves if leaf.size > 1) == [(48,), (64,), (64, 48)]
    assert [leaf.dtype for leaf in leaves if leaf.shape == (64, 48)] == [jnp.bfloat16]


def test_adafactors_bound_on_an_array():
    """Scaled gradients of 1 and 1 have a root mean square of 1; a bound of 0.5 halves them."""
    update = updates(cell(Adafactor, b1=0.0, clip_block_rms=0.5), GRADS)
    np.testing.assert_allclose(update["txt"]["kernel"], [[-0.05, -0.05]], rtol=1e-6)
    unbounded = updates(cell(Adafactor, b1=0.0), GRADS)
    np.testing.assert_allclose(unbounded["txt"]["kernel"], [[-0.1, -0.1]], rtol=1e-6)


# --- stacked blocks ------------------------------------------------------------------------------


def block(rng, width, heads, *, depth=None):
    """The arrays of one transformer block, or of `depth` stacked ones."""
    stack = () if depth is None else (depth,)
    shapes = {
        "LayerNorm_0": {"scale": (width,), "bias": (width,)},
        "query": {"kernel": (width, heads, width // heads), "bias": (heads, width // heads)},
        "Dense_0": {"kernel": (width, 4 * width), "bias": (4 * width,)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=stack + shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def towers(blocks):
    """As `study.models` names the parameters: blocks by tower, stacked or under their numbers."""
    return {
        "img": {"Transformer": blocks[0], "pos_embedding": jnp.ones((1, 40, 36))},
        "txt": {"Encoder_0": blocks[1], "Embed_0": {"embedding": jnp.ones((50, 36))}},
        "t": jnp.ones(1),
    }


def unstacked(tree, depths):
    """The same arrays as big_vision has them: one tree for each block."""
    split = [
        {f"encoderblock_{i}": jax.tree.map(lambda a, i=i: a[i], stack["encoderblock"])}
        for stack, depth in zip(
            (tree["img"]["Transformer"], tree["txt"]["Encoder_0"]), depths, strict=True
        )
        for i in range(depth)
    ]
    images, texts = split[: depths[0]], split[depths[0] :]
    merged = [{k: v for one in group for k, v in one.items()} for group in (images, texts)]
    return {
        "img": tree["img"] | {"Transformer": merged[0]},
        "txt": tree["txt"] | {"Encoder_0": merged[1]},
        "t": tree["t"],
    }


DEEP = {"min_dim_size_to_factor": 8, "learning_rate": 1.0, "b1": 0.0}


@pytest.mark.parametrize("more", [{"clip_block_rms": 0.5}, {"text": ParamGroup(frozen=True)}])
def test_stacked_blocks_take_the_steps_of_single_ones(more):
    """Three steps of two towers 10 and 9 deep, where scales, biases and one kernel are deeper
    than they are wide, against the very blocks one by one."""
    depths, rng = (10, 9), np.random.default_rng(0)
    draws = [
        towers([{"encoderblock": block(rng, 36, 4, depth=depth)} for depth in depths])
        for _ in range(4)
    ]
    params, *grads = draws
    c = cell(Adafactor, **DEEP | more)
    got = unstacked(updates(c, *grads, params=params), depths)
    singles = [unstacked(tree, depths) for tree in (params, *grads)]
    want = updates(c, *singles[1:], params=singles[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), got, want)


def test_shallow_towers_take_optaxs_own_steps_bit_for_bit():
    """12 stacked blocks of 64 by 256: state and updates are those of optax on the whole stack."""
    rng = np.random.default_rng(0)
    params, *grads = [{"txt": {"encoderblock": block(rng, 64, 2, depth=12)}} for _ in range(3)]
    o = Adafactor(b1=0.0)
    ours = scale_by_adafactor(o, b1=o.b1, b2=o.b2)
    plain = optax.scale_by_factored_rms(
        min_dim_size_to_factor=32,
        epsilon=o.eps,
        decay_rate_fn=lambda step, power: jnp.minimum(o.b2, 1.0 - (step + 1.0) ** -power),
    )
    state, want_state = ours.init(params), plain.init(params)
    for g in grads:
        got, state = ours.update(g, state, params)
        want, want_state = plain.update(g, want_state, params)
        jax.tree.map(np.testing.assert_array_equal, (got, state[0]), (want, want_state))


@pytest.mark.parametrize(
    ("variant", "depth", "over_layers"), [("g", 40, True), ("H", 32, True), ("So400m", 27, False)]
)
def test_no_second_moment_of_a_deep_tower_is_factored_over_its_layers(variant, depth, over_layers):
    """Scales and biases have a moment for each number, as in the code base's single blocks."""
    model = Model(image=ViT(variant=f"{variant}/14", image_size=28), text=MeanPoolText(width=8))
    deep = dataclasses.replace(cell(Adafactor), model=model)
    state = jax.eval_shape(
        lambda: initial_state(deep, Vocabulary(50, eos=1, pad=1), (28, 28, 3), 0)
    )
    leaves = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    width = model.image.size.width
    moments = {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in leaves
        if "encoderblock" in str(path) and ".v" in jax.tree_util.keystr(path)
    }
    scales = {k: v for k, v in moments.items() if "scale" in k or "bias" in k}
    assert {v[0] for v in scales.values() if len(v) > 1} == {depth}
    whole = [k for k, v in scales.items() if ".v[" in k and math.prod(v) >= depth * width]
    # Two norms, the attention's query, key, value and out, and the two layers of the MLP.
    assert len(whole) == 2 * 2 + 4 + 2
    row = next(v for k, v in moments.items() if ".v_row[" in k and "Dense_1" in k and "kernel" in k)
    assert row[:2] == (depth, width)
    assert any("inner_states" in k for k in moments) == over_layers


# --- parts ---------------------------------------------------------------------------------------


def test_a_part_has_its_own_rate_and_decay():
    """Lion's step is the sign: -(0.1 * 0.1) for the image, -(0.1 + 0.01 * 2) for the text."""
    c = cell(
        Lion,
        weight_decay=0.01,
        image=ParamGroup(lr_mult=0.1, wd_mult=0),
        loss_scalars=ParamGroup(lr_mult=2),
    )
    update = updates(c, GRADS)
    np.testing.assert_allclose(update["img"]["head"]["kernel"], [[-0.01]], rtol=1e-6)
    np.testing.assert_allclose(update["txt"]["kernel"], [[-0.12, -0.09]], rtol=1e-6)
    np.testing.assert_allclose(update["t"], [-0.2], rtol=1e-6)


def test_the_rate_of_a_part_does_not_touch_its_decay():
    update = updates(cell(Lion, weight_decay=0.01, image=ParamGroup(lr_mult=0.1)), GRADS)
    np.testing.assert_allclose(update["img"]["head"]["kernel"], [[-0.01 - 0.04]], rtol=1e-6)


@pytest.mark.parametrize("kind", [Adam, Adafactor, Lion])
def test_a_frozen_tower_does_not_move_and_has_no_state(kind):
    c = cell(kind, weight_decay=0.01, image=ParamGroup(frozen=True))
    params = PARAMS | {"img": {"head": {"kernel": jnp.full((37, 41), 4.0)}}}
    grads = jax.tree.map(jnp.ones_like, params)
    state = optimizer(c).init(params)
    assert all(leaf.size <= 2 for leaf in jax.tree.leaves(state))
    update = updates(c, grads, grads, params=params)
    assert not update["img"]["head"]["kernel"].any()
    trained = updates(cell(kind, weight_decay=0.01), grads, grads, params=params)
    np.testing.assert_array_equal(update["txt"]["kernel"], trained["txt"]["kernel"])


def test_a_frozen_tower_is_not_in_the_clipped_norm():
    """Without img the norm of four ones is 2, so a limit of 1 halves what Adafactor never sees."""
    huge = GRADS | {"img": {"head": {"kernel": jnp.array([[1e6]])}}}
    c = cell(Adam, clip_norm=1.0, eps=1.0, image=ParamGroup(frozen=True))
    np.testing.assert_allclose(updates(c, huge)["t"], [-0.1 * 0.5 / 1.5], rtol=1e-5)


def test_without_frozen_leaves_out_what_is_not_trained():
    assert drop_frozen(cell(image=ParamGroup(frozen=True)), PARAMS).keys() == {"txt", "t"}
    assert drop_frozen(cell(), PARAMS).keys() == PARAMS.keys()


def test_parameters_of_no_part_are_refused():
    with pytest.raises(ValueError, match=r"'extra'.*img, txt, t, b"):
        updates(cell(), {"extra": jnp.ones(1)}, params={"extra": jnp.ones(1)})


def test_freezing_everything_is_refused():
    with pytest.raises(ValueError, match="all frozen"):
        frozen = ParamGroup(frozen=True)
        Adam(image=frozen, text=frozen, loss_scalars=frozen)


# --- schedules -----------------------------------------------------------------------------------

BY_HAND = {
    "cosine": {0: 0, 10: 0.5, 20: 1, 60: 0.5, 80: 0.146447, 100: 0},
    "linear": {0: 0, 10: 0.5, 20: 1, 60: 0.5, 80: 0.25, 100: 0},
    "constant": {0: 0, 10: 0.5, 20: 1, 60: 1, 100: 1},
    "rsqrt": {0: 0, 10: 0.5, 20: 1, 50: 0.5, 100: 1 / 3},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_schedules_by_hand(name):
    more = {"timescale_steps": 10} if name == "rsqrt" else {}
    factor = schedule(cell(schedule=name, warmup_steps=20, **more))
    for step, value in BY_HAND[name].items():
        assert abs(float(factor(step)) - value) < 1e-6, step


def test_a_cooldown_ends_any_schedule_at_zero():
    """From step 60 on the constant and the rsqrt fall by a line over 40 steps."""
    factor = schedule(cell(cooldown_percent=40))
    assert [round(float(factor(s)), 6) for s in (0, 60, 70, 100)] == [1, 1, 0.75, 0]
    factor = schedule(cell(schedule="rsqrt", timescale_steps=20, cooldown_steps=40))
    assert [round(float(factor(s)), 6) for s in (0, 60, 80)] == [1, 0.5, round(0.5 / 5**0.5, 6)]


@pytest.mark.parametrize("suffix", [("steps", 30), ("examples", 300), ("percent", 30)])
def test_durations_are_read_by_suffix(suffix):
    unit, value = suffix
    durations = {f"{name}_{unit}": value for name in ("warmup", "timescale", "cooldown")}
    factor = schedule(cell(schedule="rsqrt", **durations))
    assert [round(float(factor(s)), 6) for s in (15, 30, 60, 85)] == [
        0.5,
        1.0,
        round(0.5**0.5, 6),
        round(0.5 / (1 + 55 / 30) ** 0.5, 6),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": "rsqrt"},
        {"timescale_steps": 10},
        {"schedule": "rsqrt", "timescale_steps": 0},
        {"cooldown_steps": 10, "cooldown_percent": 1},
    ],
)
def test_durations_that_do_not_fit_the_schedule_are_refused(wrong):
    with pytest.raises(ValueError, match=r"timescale|cooldown"):
        Adam(**wrong)


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_equals_optaxs(limit):
    tx = optax.clip_by_global_norm(limit)
    want, _ = tx.update(GRADS, tx.init(PARAMS))
    ours = clip_by_global_norm(limit)
    got, _ = ours.update(GRADS, ours.init(PARAMS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)
    np.testing.assert_allclose(global_norm(GRADS), optax.tree.norm(GRADS), rtol=1e-6)


def test_new_fields_do_not_change_the_ids_of_old_cells():
    spelt = dataclasses.replace(cell().optimizer, image=ParamGroup(), timescale_steps=None)
    assert dataclasses.replace(cell(), optimizer=spelt).id == cell().id
    frozen = dataclasses.replace(cell().optimizer, image=ParamGroup(frozen=True))
    assert dataclasses.replace(cell(), optimizer=frozen).id != cell().id
