# %% [markdown]
# # A power network: which plants relieve a line?
#
# Alternating current in a high-voltage network is, to first order, a graph of springs: the power on a line
# is the difference of the voltage angles at its ends over its reactance $x$, and what flows into a bus flows
# out (the "DC power flow"). That is a sparse linear system. It is singular: only differences of angles
# matter. We solve it as it is, ask by one gradient what every plant and every line does to the load of one
# line, and relieve that line by the smallest change of generation.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from matplotlib.collections import LineCollection
from scipy.sparse.csgraph import connected_components, shortest_path

import linsolve_prim as lp

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## The network
#
# The IEEE 118-bus case: the grid of American Electric Power in the Midwest of the USA, 1962
# (Power Systems Test Case Archive, University of Washington; the numbers are those of MATPOWER's `case118`).
# Lines and transformers as `bus-bus:reactance` in per unit, loads and plants as `bus:megawatt`. (Ratios of
# transformers and resistances are left out, as usual in this approximation.)

# %%
lines = """
1-2:.0999 1-3:.0424 4-5:.00798 3-5:.108 5-6:.054 6-7:.0208 8-9:.0305 8-5:.0267 9-10:.0322 4-11:.0688
5-11:.0682 11-12:.0196 2-12:.0616 3-12:.16 7-12:.034 11-13:.0731 12-14:.0707 13-15:.2444 14-15:.195
12-16:.0834 15-17:.0437 16-17:.1801 17-18:.0505 18-19:.0493 19-20:.117 15-19:.0394 20-21:.0849 21-22:.097
22-23:.159 23-24:.0492 23-25:.08 26-25:.0382 25-27:.163 27-28:.0855 28-29:.0943 30-17:.0388 8-30:.0504
26-30:.086 17-31:.1563 29-31:.0331 23-32:.1153 31-32:.0985 27-32:.0755 15-33:.1244 19-34:.247 35-36:.0102
35-37:.0497 33-37:.142 34-36:.0268 34-37:.0094 38-37:.0375 37-39:.106 37-40:.168 30-38:.054 39-40:.0605
40-41:.0487 40-42:.183 41-42:.135 43-44:.2454 34-43:.1681 44-45:.0901 45-46:.1356 46-47:.127 46-48:.189
47-49:.0625 42-49:.323 42-49:.323 45-49:.186 48-49:.0505 49-50:.0752 49-51:.137 51-52:.0588 52-53:.1635
53-54:.122 49-54:.289 49-54:.291 54-55:.0707 54-56:.00955 55-56:.0151 56-57:.0966 50-57:.134 56-58:.0966
51-58:.0719 54-59:.2293 56-59:.251 56-59:.239 55-59:.2158 59-60:.145 59-61:.15 60-61:.0135 60-62:.0561
61-62:.0376 63-59:.0386 63-64:.02 64-61:.0268 38-65:.0986 64-65:.0302 49-66:.0919 49-66:.0919 62-66:.218
62-67:.117 65-66:.037 66-67:.1015 65-68:.016 47-69:.2778 49-69:.324 68-69:.037 69-70:.127 24-70:.4115
70-71:.0355 24-72:.196 71-72:.18 71-73:.0454 70-74:.1323 70-75:.141 69-75:.122 74-75:.0406 76-77:.148
69-77:.101 75-77:.1999 77-78:.0124 78-79:.0244 77-80:.0485 77-80:.105 79-80:.0704 68-81:.0202 81-80:.037
77-82:.0853 82-83:.03665 83-84:.132 83-85:.148 84-85:.0641 85-86:.123 86-87:.2074 85-88:.102 85-89:.173
88-89:.0712 89-90:.188 89-90:.0997 90-91:.0836 89-92:.0505 89-92:.1581 91-92:.1272 92-93:.0848 92-94:.158
93-94:.0732 94-95:.0434 80-96:.182 82-96:.053 94-96:.0869 80-97:.0934 80-98:.108 80-99:.206 92-100:.295
94-100:.058 95-96:.0547 96-97:.0885 98-100:.179 99-100:.0813 100-101:.1262 92-102:.0559 101-102:.112
100-103:.0525 100-104:.204 103-104:.1584 103-105:.1625 100-106:.229 104-105:.0378 105-106:.0547
105-107:.183 105-108:.0703 106-107:.183 108-109:.0288 103-110:.1813 109-110:.0762 110-111:.0755
110-112:.064 17-113:.0301 32-113:.203 32-114:.0612 27-115:.0741 114-115:.0104 68-116:.00405 12-117:.14
75-118:.0481 76-118:.0544
"""
loads = """
1:51 2:20 3:39 4:39 6:52 7:19 8:28 11:70 12:47 13:34 14:14 15:90 16:25 17:11 18:60 19:45 20:18 21:14 22:10
23:7 24:13 27:71 28:17 29:24 31:43 32:59 33:23 34:59 35:33 36:31 39:27 40:66 41:37 42:96 43:18 44:16 45:53
46:28 47:34 48:20 49:87 50:17 51:17 52:18 53:23 54:113 55:63 56:84 57:12 58:12 59:277 60:78 62:77 66:39
67:28 70:66 72:12 73:6 74:68 75:47 76:68 77:61 78:71 79:39 80:130 82:54 83:20 84:11 85:24 86:21 88:48
90:163 91:10 92:65 93:12 94:30 95:42 96:38 97:15 98:34 99:42 100:37 101:22 102:5 103:23 104:38 105:31
106:43 107:50 108:2 109:8 110:39 112:68 113:6 114:8 115:22 116:184 117:20 118:33
"""
plants = """
10:450 12:85 25:220 26:314 31:7 46:19 49:204 54:48 59:155 61:160 65:391 66:392 69:516.4 80:477 87:4 89:607
100:252 103:40 111:36
"""

# %%
words = lambda text: [word.split(":") for word in text.split()]
start, end = np.array([key.split("-") for key, _ in words(lines)], int).T - 1
reactance = jnp.array([float(value) for _, value in words(lines)])
load, generation = np.zeros((2, 118))
for of_buses, text in ((load, loads), (generation, plants)):
    for bus, megawatts in words(text):
        of_buses[int(bus) - 1] = float(megawatts)

# %% [markdown]
# ## A singular system
#
# The matrix is the Laplacian of the graph, $\sum_k (e_i - e_j)(e_i - e_j)^T / x_k$: semidefinite, and 0 for a
# constant. A solver that is told so checks the right-hand side. Here the plants give 3 % more than the loads
# take (the losses in the lines, which this approximation leaves out), so there is no solution.


# %%
def network(x):
    """The operator for line reactances x, as a sparse matrix."""
    both, swapped = np.concatenate([start, end]), np.concatenate([end, start])
    once = 1 / jnp.tile(x, 2)
    return lp.SparseLinearOperator.from_coo(
        np.tile(both, 2),
        np.concatenate([both, swapped]),
        jnp.concatenate([once, -once]),
        (118, 118),
        lp.positive_semidefinite_tag,
    )


solver = lp.CG(rtol=1e-12, preconditioner="ic", nullspace="constant")
angles = jax.jit(lambda x, injection: lp.solve(network(x), injection, solver))
try:
    lp.solve(network(reactance), jnp.asarray(generation - load), solver)
except lp.IncompatibleRHS as error:
    print(error)

# %% [markdown]
# With the losses taken off the plants, there is one.

# %%
generation *= load.sum() / generation.sum()
injection = jnp.asarray(generation - load)


@jax.jit
def flows(x, injection):
    """Megawatts on each line."""
    theta = angles(x, injection)
    return (theta[start] - theta[end]) / x


flow = flows(reactance, injection)
left_over = np.zeros(118)
np.add.at(left_over, start, flow)
np.add.at(left_over, end, -flow)
print("every bus is balanced:", bool(np.allclose(left_over, injection, atol=1e-6)))

# %% [markdown]
# ## One line, everything that acts on it
#
# The line from bus 38 to bus 65 joins the two halves of the network. Its flow is differentiated by all
# injections and all reactances, in one adjoint solve: with the same singular matrix, whose null space is
# handled there as well. What a plant does is then defined up to a constant, and we let all buses share
# what it gives.

# %%
line = int(np.flatnonzero((start == 37) & (end == 64))[0])
on_line = lambda x, injection: abs(flows(x, injection)[line])
by_reactance, by_injection = jax.jit(jax.grad(on_line, (0, 1)))(reactance, injection)

direction = reactance * np.random.default_rng(0).normal(size=len(reactance))
h = 1e-4
difference = on_line(reactance + h * direction, injection) - on_line(
    reactance - h * direction, injection
)
gradient_error = float(abs(by_reactance @ direction / (difference / (2 * h)) - 1))

# %% [markdown]
# ## Relief
#
# The smallest change of generation (in the sum of squares) that takes 50 MW off the line lies along the
# gradient, restricted to the large plants and to sums of zero. The equations are linear in the injections,
# so it does exactly that.

# %%
large = generation > 45
along = np.where(large, by_injection - by_injection[large].mean(), 0)
change = -50 * along / (along @ along)
after = flows(reactance, injection + change)
relief = float(abs(flow[line]) - abs(after[line]))
print(f"{abs(flow[line]):.1f} MW before, {abs(after[line]):.1f} MW after")
print("no plant is asked for less than nothing:", bool(np.all(generation + change >= 0)))

# %% [markdown]
# ## What the rest of the network can carry
#
# If 1 MW is sent from one end of a line to the other, a share of it takes the line itself: its effective
# resistance over $x$. A share of 1 means that there is no other way. One matrix, 186 right-hand sides:
# `vmap` solves them together. By Foster's theorem the shares of all lines sum to 118 − 1.

# %%
pairs = np.zeros((len(start), 118))
pairs[np.arange(len(start)), start], pairs[np.arange(len(start)), end] = 1, -1
theta = jax.vmap(angles, (None, 0))(reactance, jnp.asarray(pairs))
share = np.sum(pairs * theta, axis=1) / reactance
foster = float(share.sum())
alone = np.flatnonzero(share > 1 - 1e-8)


def islands(without):
    """The number of parts of the network without one line."""
    kept = np.arange(len(start)) != without
    graph = sp.coo_array((np.ones(kept.sum()), (start[kept], end[kept])), (118, 118))
    return connected_components(graph, directed=False)[0]


split = [k for k in range(len(start)) if islands(k) == 2]
print(f"{len(alone)} lines have no other way; their loss splits it: {split == alone.tolist()}")

# %% [markdown]
# ## The picture
#
# Buses are placed so that distances on paper are like those in the network (its stress is minimised, by
# gradients as well).

# %%
graph = sp.coo_array((np.ones(len(start)), (start, end)), (118, 118))
hops = shortest_path(graph, directed=False, unweighted=True)
i, j = np.triu_indices(118, 1)
far = jnp.asarray(hops[i, j])


def stress(points):
    between = points[i] - points[j]
    return jnp.sum((jnp.sqrt(jnp.sum(between**2, 1) + 1e-6) / far - 1) ** 2)


centred = hops**2 - (hops**2).mean(0) - (hops**2).mean(1)[:, None] + (hops**2).mean()
scales, axes_of = np.linalg.eigh(-centred / 2)
layout = lp.minimize(
    stress,
    jnp.asarray(axes_of[:, -1:-3:-1] * np.sqrt(scales[-1:-3:-1])),
    "L-BFGS-B",
    rtol=1e-4,
    max_steps=400,
    throw=False,
)
points = np.asarray(layout.value)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 4.2), layout="constrained")
wires = points[np.stack([start, end], 1)]
width = 0.5 + 0.025 * np.abs(flow)
drawn = LineCollection(wires, linewidths=width, array=share, cmap="YlOrRd", clim=(-0.2, 1))
left.add_collection(drawn)
left.scatter(*points.T, s=3 + 0.5 * generation, color="tab:blue", zorder=3)
left.scatter(*points.T, s=3 + 0.2 * load, color="black", zorder=4)
left.set_title("plants (blue), loads (black), flows (width)")
bar = figure.colorbar(
    drawn, ax=left, location="bottom", shrink=0.6, label="share (1: no other way)"
)
bar.ax.set_xlim(0, 1)

right.add_collection(LineCollection(wires, linewidths=0.8, color="0.75"))
right.add_collection(LineCollection(wires[[line]], linewidths=5, color="gold"))
felt = np.asarray(by_injection - by_injection.mean())
dots = right.scatter(
    *points.T, s=16, c=felt, cmap="PuOr_r", edgecolors="0.4", linewidths=0.4, zorder=3
)
dots.set_clim(-np.abs(felt).max(), np.abs(felt).max())
for sign, marker in ((1, "^"), (-1, "v")):
    chosen = sign * change > 0
    sizes = 9 * np.abs(change[chosen])
    right.scatter(
        *points[chosen].T, s=sizes, marker=marker, color="none", edgecolors="black", zorder=4
    )
right.set_title("relief of the yellow line: plants up (△) and down (▽)")
label = "MW on the line for 1 MW at a bus"
figure.colorbar(dots, ax=right, location="bottom", shrink=0.6, label=label)
for ax in (left, right):
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.axis("off")
plt.show()

# %% [markdown]
# ## The numbers
#
# How well the relief is met, how exact the derivatives by reactances are, and Foster's sum.

# %%
print(f"relief {relief:.6f} MW; sum of the shares {foster:.9f}")
print(f"error of the gradient below 1e-5: {gradient_error < 1e-5}")
