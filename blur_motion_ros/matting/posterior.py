"""Alpha of every pixel as the posterior mean over explanations of its colour (compiled, one pass).

Explanations of I against the plate B, colours in linear light, noise sigma per channel:
  background  I = B
  shadow      I = s B, s in [0.25, 1]
  other       anything else that is not our person
  opaque      I = F_c for a foreground colour c, or any colour at all
  blended     I = a F_c + (1 - a) B with a Gaussian prior on a, or with any colour at all
Each has a prior share and a density; constants common to all are dropped.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SHADOW_DEPTH = 0.75  # a shadow takes at most this share of the light
_SHADOW_TINT = 0.04  # colour change of a shadow, share of |B|
_BACKGROUND, _SHADOW, _OTHER = 0.6, 0.35, 0.05  # shares among what is not the person
_UNKNOWN_COLOUR = 0.06  # share of the person whose colour is none of the candidates
_LEAST_PERSON = 2e-3  # where the person is less probable than this, alpha is 0
_SAME = 6.0  # squared difference in noise variances of a pixel that looks just like the plate
_GAUSS3 = 0.063493636  # (2 pi) ** -1.5


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def posterior(image, plate, smooth, sigma, person, opaque, prior, local, local_spread, local_weight, palette,
              palette_spread, palette_weight, texture, texture_sd, shadow, alpha, alpha_sd):
    """Fill alpha, alpha_sd [H, W].

    image, plate [H, W, 3]; smooth [H, W, 3] image - plate averaged over a few pixels, of half the noise; sigma
    [H, W]; person [H, W] prior probability that the person contributes; opaque [H, W] that alpha is 1 if so;
    prior: mean and sd of alpha if blended (mean inside, mean outside, sd). local [L, H, W, 3], local_spread,
    local_weight [L, H, W]: colours of the neighbourhood; palette [C, 3], palette_spread, palette_weight [C];
    texture, texture_sd [H, W]: alpha by `see_through`.
    """
    h, w = sigma.shape
    n_local, n = local.shape[0], local.shape[0] + palette.shape[0]
    shadow_share = _SHADOW if shadow else 1e-9
    for y in range(h):
        for x in range(w):
            q = person[y, x]
            if q < _LEAST_PERSON:
                alpha[y, x], alpha_sd[y, x] = 0.0, 0.02
                continue
            full = opaque[y, x]
            mu, v = prior[0] if full > 0.02 else prior[1], prior[2] * prior[2]
            if full > 0.02 and texture_sd[y, x] < 1.0:
                full, mu, v = _with_texture(full, mu, v, texture[y, x], texture_sd[y, x] ** 2)
            s2 = sigma[y, x] * sigma[y, x]
            b0, b1, b2 = plate[y, x, 0], plate[y, x, 1], plate[y, x, 2]
            d0, d1, d2 = image[y, x, 0] - b0, image[y, x, 1] - b1, image[y, x, 2] - b2
            m0, m1, m2 = smooth[y, x, 0], smooth[y, x, 1], smooth[y, x, 2]
            unchanged = d0 * d0 + d1 * d1 + d2 * d2 < _SAME * s2 and m0 * m0 + m1 * m1 + m2 * m2 < 0.25 * _SAME * s2
            if unchanged and full < 0.02:  # most pixels of a crop: nothing to weigh
                alpha[y, x], alpha_sd[y, x] = 0.0, 0.02 + 0.15 * q
                continue
            nobody = _not_person(b0, b1, b2, d0, d1, d2, s2, shadow_share)
            nobody = (1.0 - q) * min(nobody, _not_person(b0, b1, b2, m0, m1, m2, 0.25 * s2, shadow_share))
            low = max(mu, _least_alpha(b0, d0), _least_alpha(b1, d1), _least_alpha(b2, d2))
            p = q * (1.0 - full) * _UNKNOWN_COLOUR
            certain = q * full * _UNKNOWN_COLOUR
            total, first, second = p, p * low, p * (low * low + v)
            for c in range(n):
                if c < n_local:
                    weight, spread = local_weight[c, y, x], local_spread[c, y, x]
                    f0, f1, f2 = local[c, y, x, 0] - b0, local[c, y, x, 1] - b1, local[c, y, x, 2] - b2
                else:
                    k = c - n_local
                    weight, spread = palette_weight[k], palette_spread[k]
                    f0, f1, f2 = palette[k, 0] - b0, palette[k, 1] - b1, palette[k, 2] - b2
                if weight < 1e-4:
                    continue
                weight *= q * _GAUSS3
                noise = s2 + spread * spread
                e0, e1, e2 = d0 - f0, d1 - f1, d2 - f2
                misfit = (e0 * e0 + e1 * e1 + e2 * e2) / noise
                if misfit < 50.0:
                    certain += full * weight * np.exp(-0.5 * misfit) / (noise * np.sqrt(noise))
                ff = f0 * f0 + f1 * f1 + f2 * f2
                df = d0 * f0 + d1 * f1 + d2 * f2
                a = min(max((df * v + mu * s2) / (ff * v + s2), 0.0), 1.0)
                noise = s2 + a * a * spread * spread
                stiff = ff * v / noise + 1.0
                a = min(max((df * v / noise + mu) / stiff, 0.0), 1.0)
                e0, e1, e2 = d0 - a * f0, d1 - a * f1, d2 - a * f2
                misfit = (e0 * e0 + e1 * e1 + e2 * e2) / noise + (a - mu) * (a - mu) / v
                if misfit < 50.0:
                    p = (1.0 - full) * weight * np.exp(-0.5 * misfit) / (noise * np.sqrt(noise * stiff))
                    total += p
                    first += p * a
                    second += p * (a * a + v / stiff)
            total += certain + nobody
            m = (first + certain) / total
            alpha[y, x] = m
            alpha_sd[y, x] = np.sqrt(max((second + certain) / total - m * m, 4e-4))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _with_texture(full, mu, v, a, t):
    """Prior (share opaque, mean and variance if blended) after seeing alpha a with variance t in the texture."""
    opaque = full * np.exp(-0.5 * (a - 1.0) ** 2 / t) / np.sqrt(t)
    blended = (1.0 - full) * np.exp(-0.5 * (a - mu) ** 2 / (v + t)) / np.sqrt(v + t)
    mean = (mu * t + a * v) / (v + t)
    return opaque / (opaque + blended + 1e-12), min(max(mean, 0.0), 1.0), v * t / (v + t)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _least_alpha(b, d):
    """Least coverage that can turn plate b into b + d with a colour inside [0, 1]."""
    a = d / max(1.0 - b, 1e-3) if d > 0.0 else -d / max(b, 1e-3)
    return min(a, 1.0)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _not_person(b0, b1, b2, d0, d1, d2, s2, shadow_share):
    """Density of the colour difference d if the person is not there."""
    misfit = (d0 * d0 + d1 * d1 + d2 * d2) / s2
    density = _OTHER
    if misfit < 50.0:
        density += _BACKGROUND * _GAUSS3 * np.exp(-0.5 * misfit) / (s2 * np.sqrt(s2))
    bb = b0 * b0 + b1 * b1 + b2 * b2 + 1e-9
    t = min(max(-(d0 * b0 + d1 * b1 + d2 * b2) / bb, 0.0), SHADOW_DEPTH)
    e0, e1, e2 = d0 + t * b0, d1 + t * b1, d2 + t * b2
    noise = s2 + _SHADOW_TINT * _SHADOW_TINT * bb * t
    misfit = (e0 * e0 + e1 * e1 + e2 * e2) / noise
    if misfit < 50.0:
        # integrated over the unknown depth: one dimension of the noise is spread over the range of depths
        spread = min(np.sqrt(6.2832 * noise / bb) / SHADOW_DEPTH, 1.0)
        density += shadow_share * _GAUSS3 * np.exp(-0.5 * misfit) / (noise * np.sqrt(noise)) * spread
    return density
