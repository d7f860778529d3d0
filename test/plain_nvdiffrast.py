"""A slow, plain stand-in for the module `nvdiffrast.torch`, so that what surrounds its kernels runs without a GPU."""

from types import SimpleNamespace

import numpy as np
import torch


class PlainOperations(SimpleNamespace):
    """What nvdiffrast's documentation says of rasterize and interpolate, by plain loops; antialias changes nothing.

    First row at y = -1; outputs (u, v, z/w, triangle + 1), u and v weights of the first and second corner, perspective
    correct; nothing outside -1 <= z/w <= 1.
    """

    def __init__(self):
        super().__init__(hashes=0, calls=0)

    def RasterizeCudaContext(self, device=None):
        return "context"

    def antialias_construct_topology_hash(self, tri):
        self.hashes += 1
        return "hash"

    def antialias(self, color, rast, pos, tri, topology_hash=None, pos_gradient_boost=1.0):
        assert topology_hash == "hash" and color.shape[:3] == rast.shape[:3] and pos.shape[-1] == 4
        return color

    def rasterize(self, context, pos, tri, resolution, ranges=None, grad_db=True):
        assert pos.dtype == torch.float32 and tri.dtype == torch.int32 and pos.is_contiguous() and tri.is_contiguous()
        self.calls += 1
        height, width = resolution
        out = np.zeros((len(pos), height, width, 4), np.float32)
        for m, p in enumerate(pos.detach().numpy().astype(np.float64)):
            depth = np.full((height, width), 1.0)
            x, y = (p[:, 0] / p[:, 3] + 1) * width / 2 - 0.5, (p[:, 1] / p[:, 3] + 1) * height / 2 - 0.5
            for t, (a, b, c) in enumerate(tri.numpy()):
                x0, x1 = max(0, int(np.ceil(x[[a, b, c]].min()))), min(width - 1, int(x[[a, b, c]].max()))
                y0, y1 = max(0, int(np.ceil(y[[a, b, c]].min()))), min(height - 1, int(y[[a, b, c]].max()))
                area = (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
                if x0 > x1 or y0 > y1 or abs(area) < 1e-9:
                    continue
                px, py = np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1))
                wb = ((px - x[a]) * (y[c] - y[a]) - (py - y[a]) * (x[c] - x[a])) / area
                wc = ((x[b] - x[a]) * (py - y[a]) - (y[b] - y[a]) * (px - x[a])) / area
                screen = np.stack([1 - wb - wc, wb, wc], -1)
                z = screen @ (p[[a, b, c], 2] / p[[a, b, c], 3])
                here = (screen >= 0).all(-1) & (z < depth[y0:y1 + 1, x0:x1 + 1]) & (z >= -1)
                true = screen / p[[a, b, c], 3]
                true /= true.sum(-1, keepdims=True)
                found = np.concatenate([true[..., :2], z[..., None], np.full(z.shape + (1,), t + 1.0)], -1)
                out[m, y0:y1 + 1, x0:x1 + 1][here] = found[here]
                depth[y0:y1 + 1, x0:x1 + 1][here] = z[here]
        return torch.from_numpy(out), None

    def interpolate(self, attr, rast, tri, rast_db=None, diff_attrs=None):
        corners = tri.long()[(rast[..., 3].long() - 1).clamp(min=0)]
        weights = torch.stack([rast[..., 0], rast[..., 1], 1 - rast[..., 0] - rast[..., 1]], -1)
        values = (attr[0][corners] * weights[..., None]).sum(-2)
        return values * (rast[..., 3:] > 0), None
