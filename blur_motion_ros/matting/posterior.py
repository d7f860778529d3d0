"""Alpha of every pixel as the posterior mean over explanations of its colour (compiled, one pass).

Explanations of I against the plate B, colours in linear light, noise sigma per channel:
  background  I = B
  shadow      I = s B, s in [0.25, 1]
  other       anything else that is not our person
  person      I = a F_c + (1 - a) B for each foreground colour c, with Gaussian prior on a
  person      of unknown colour
"""

from __future__ import annotations

import numpy as np
from numba import njit

SHADOW_DEPTH = 0.75  # a shadow takes at most this share of the light
_SHADOW_TINT = 0.04  # colour change of a shadow, share of |B|
_BACKGROUND, _SHADOW, _OTHER = 0.6, 0.35, 0.05  # shares among what is not the person
_UNKNOWN_COLOUR = 0.06  # share of the person whose colour is none of the candidates


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def posterior(image, plate, sigma, person, opaque, prior_mean, prior_sd, local, local_spread, local_weight, palette,
              palette_spread, palette_weight, shadow, alpha, alpha_sd, seen):
    """Fill alpha, alpha_sd and seen [H, W] (probability that the person contributes).

    image, plate [H, W, 3]; sigma [H, W]; person [H, W] prior probability that the person contributes;
    opaque [H, W] probability that alpha is 1 if so; prior_mean, prior_sd [H, W] of alpha if it is blended;
    local [L, H, W, 3], local_spread, local_weight [L, H, W]: candidate colours of the neighbourhood;
    palette [C, 3], palette_spread, palette_weight [C]: those of the whole person.
    """
    h, w = sigma.shape
    n_local, n_palette = local.shape[0], palette.shape[0]
    n = n_local + n_palette
    log_of = np.empty(n)
    mean_of = np.empty(n)
    var_of = np.empty(n)
    shadow_share = _SHADOW if shadow else 1e-9
    for y in range(h):
        for x in range(w):
            q = person[y, x]
            if q < 1e-4:
                alpha[y, x] = 0.0
                alpha_sd[y, x] = 0.02
                seen[y, x] = 0.0
                continue
            b0, b1, b2 = plate[y, x, 0], plate[y, x, 1], plate[y, x, 2]
            d0, d1, d2 = image[y, x, 0] - b0, image[y, x, 1] - b1, image[y, x, 2] - b2
            s2 = sigma[y, x] * sigma[y, x]
            mu, v = prior_mean[y, x], prior_sd[y, x] * prior_sd[y, x]
            log_bg = _log_not_person(b0, b1, b2, d0, d1, d2, s2, shadow_share) + np.log(1.0 - q)
            full = opaque[y, x]
            log_unknown = np.log(q * (1.0 - full) * _UNKNOWN_COLOUR)
            log_full = q * full * _UNKNOWN_COLOUR  # density for now
            top = max(log_bg, log_unknown)
            for c in range(n):
                if c < n_local:
                    f0, f1, f2 = local[c, y, x, 0] - b0, local[c, y, x, 1] - b1, local[c, y, x, 2] - b2
                    spread, weight = local_spread[c, y, x], local_weight[c, y, x]
                else:
                    k = c - n_local
                    f0, f1, f2 = palette[k, 0] - b0, palette[k, 1] - b1, palette[k, 2] - b2
                    spread, weight = palette_spread[k], palette_weight[k]
                if weight < 1e-4:
                    log_of[c], mean_of[c], var_of[c] = -1e30, 0.0, 0.0
                    continue
                e0, e1, e2 = d0 - f0, d1 - f1, d2 - f2
                noise = s2 + spread * spread
                likelihood = np.exp(-0.5 * (e0 * e0 + e1 * e1 + e2 * e2) / noise) / (6.2832 * noise) ** 1.5
                log_full += q * full * weight * likelihood
                ff = f0 * f0 + f1 * f1 + f2 * f2
                df = d0 * f0 + d1 * f1 + d2 * f2
                a = min(max((df / s2 + mu / v) / (ff / s2 + 1.0 / v), 0.0), 1.0)
                noise = s2 + a * a * spread * spread
                precision = ff / noise + 1.0 / v
                a = min(max((df / noise + mu / v) / precision, 0.0), 1.0)
                r0, r1, r2 = d0 - a * f0, d1 - a * f1, d2 - a * f2
                misfit = (r0 * r0 + r1 * r1 + r2 * r2) / noise + (a - mu) * (a - mu) / v
                log_of[c] = (np.log(q * (1.0 - full) * weight) - 0.5 * misfit - 1.5 * np.log(6.2832 * noise)
                             - 0.5 * np.log(v * precision))
                mean_of[c] = a
                var_of[c] = 1.0 / precision
                top = max(top, log_of[c])
            log_full = np.log(log_full + 1e-30)
            top = max(top, log_full)
            not_person = np.exp(log_bg - top)
            total = not_person
            p = np.exp(log_unknown - top)
            total += p
            low = max(mu, _least_alpha(b0, d0), _least_alpha(b1, d1), _least_alpha(b2, d2))
            first = p * low
            second = p * (low * low + v)
            p = np.exp(log_full - top)
            total += p
            first += p
            second += p
            for c in range(n):
                p = np.exp(log_of[c] - top)
                total += p
                first += p * mean_of[c]
                second += p * (mean_of[c] * mean_of[c] + var_of[c])
            m = first / total
            alpha[y, x] = m
            seen[y, x] = 1.0 - not_person / total
            alpha_sd[y, x] = np.sqrt(max(second / total - m * m, 1e-6))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _least_alpha(b, d):
    """Least coverage that can turn plate b into b + d with a colour inside [0, 1]."""
    return d / max(1.0 - b, 1e-3) if d > 0.0 else -d / max(b, 1e-3)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _log_not_person(b0, b1, b2, d0, d1, d2, s2, shadow_share):
    """Log density of the colour difference d if the person is not there."""
    dd = d0 * d0 + d1 * d1 + d2 * d2
    same = np.log(_BACKGROUND) - 0.5 * dd / s2 - 1.5 * np.log(6.2832 * s2)
    bb = b0 * b0 + b1 * b1 + b2 * b2 + 1e-9
    t = -(d0 * b0 + d1 * b1 + d2 * b2) / bb
    t = min(max(t, 0.0), SHADOW_DEPTH)
    e0, e1, e2 = d0 + t * b0, d1 + t * b1, d2 + t * b2
    noise = s2 + _SHADOW_TINT * _SHADOW_TINT * bb * t
    occam = min(0.5 * np.log(6.2832 * noise / (bb * SHADOW_DEPTH * SHADOW_DEPTH)), 0.0)
    dark = np.log(shadow_share) - 0.5 * (e0 * e0 + e1 * e1 + e2 * e2) / noise - 1.5 * np.log(6.2832 * noise) + occam
    other = np.log(_OTHER)
    top = max(same, dark, other)
    return top + np.log(np.exp(same - top) + np.exp(dark - top) + np.exp(other - top))
