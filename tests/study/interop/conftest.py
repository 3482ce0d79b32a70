"""A two-tower model written with the names of big_vision's files, and a file of it."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict


class MlpBlock(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1], name="Dense_1")(
            nn.gelu(nn.Dense(self.hidden, name="Dense_0")(x))
        )


class Transformer(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = Encoder1DBlock(name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class Encoder1DBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y)
        return x + MlpBlock(128)(nn.LayerNorm()(x))


class MAPHead(nn.Module):
    @nn.compact
    def __call__(self, x):
        probe = self.param("probe", nn.initializers.normal(1), (1, 1, x.shape[-1]))
        x = nn.MultiHeadDotProductAttention(num_heads=2)(jnp.tile(probe, (len(x), 1, 1)), x)
        return (x + MlpBlock(128)(nn.LayerNorm()(x)))[:, 0]


class Image(nn.Module):
    pool: str

    @nn.compact
    def __call__(self, image):
        x = nn.Conv(32, (8, 8), strides=(8, 8), padding="VALID", name="embedding")(image)
        x = x.reshape(len(x), -1, 32)
        x += self.param("pos_embedding", nn.initializers.normal(1), (1, x.shape[1], 32))
        if self.pool == "tok":
            cls = self.param("cls", nn.initializers.normal(1), (1, 1, 32))
            x = jnp.concatenate([jnp.tile(cls, (len(x), 1, 1)), x], axis=1)
        x = Transformer(2, name="Transformer")(x)
        return MAPHead(name="MAPHead_0")(x) if self.pool == "map" else x[:, 0]


class Text(nn.Module):
    @nn.compact
    def __call__(self, text):
        x = nn.Embed(50, 32)(text)
        x += self.param("pos_embedding", nn.initializers.normal(1), (1, x.shape[1], 32))
        return nn.Dense(32, name="head")(Transformer(2, name="Encoder_0")(x)[:, -1])


class Reference(nn.Module):
    pool: str = "map"

    @nn.compact
    def __call__(self, image, text):
        zimg, ztxt = Image(self.pool, name="img")(image), Text(name="txt")(text)
        self.param("t", nn.initializers.constant(2.0), (1,))
        self.param("b", nn.initializers.constant(-3.0), (1,))
        return [z / (jnp.linalg.norm(z, axis=1, keepdims=True) + 1e-8) for z in (zimg, ztxt)]


def random(rng, name, shape):
    """As large as what a trained model may hold: no place of a parameter goes untested."""
    last = name.rsplit("/")[-1]
    if last == "kernel":
        return rng.normal(size=shape).astype(np.float32) / np.float32(np.prod(shape[:-1])) ** 0.5
    base, scale = (1, 0.2) if last == "scale" else (0, 0.5)
    return (base + scale * rng.normal(size=shape)).astype(np.float32)


class Bv:
    """`flat`: random parameters by big_vision's names; `zimg`, `ztxt`: what the model gives."""

    def __init__(self, pool):
        rng = np.random.default_rng(0)
        self.images = rng.uniform(-1, 1, (3, 24, 24, 3)).astype(np.float32)
        self.tokens = np.array([[3, 4, 5, 1, 1], [7, 1, 1, 1, 1], [9, 8, 1, 1, 1]], np.int32)
        model = Reference(pool)
        like = jax.eval_shape(model.init, jax.random.key(0), self.images, self.tokens)["params"]
        self.flat = {k: random(rng, k, v.shape) for k, v in flatten_dict(like, sep="/").items()}
        params = {"params": unflatten_dict(self.flat, sep="/")}
        zimg, ztxt = jax.jit(model.apply)(params, self.images, self.tokens)
        self.zimg, self.ztxt = np.asarray(zimg), np.asarray(ztxt)

    def save(self, path, flat=None, prefix="params/"):
        flat = self.flat if flat is None else flat
        np.savez(path, **{f"{prefix}{k}": v for k, v in flat.items()})
        return path


@pytest.fixture(scope="session")
def bv():
    return Bv("map")


@pytest.fixture(scope="session")
def bv_tok():
    return Bv("tok")
