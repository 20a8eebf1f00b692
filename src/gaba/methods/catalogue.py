"""The catalogue: what every method computes, needs and costs. How each is built stands elsewhere.

A rule that needs no more than its name has its class here; others have a line in ``BUILDS`` of
``own.py``, ``published.py``, ``relatives.py`` or ``peers.py``. Nothing here loads torch, so
``gaba methods`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gaba.methods.entry import Entry

FREE = "nothing"
PASSES = "K − 1 backward passes (shared with the update)"
PAPER = "the GABA paper, equation 4"
OURS = "this library"

OWN = (
    Entry(
        "gaba",
        "own",
        "m_k ∝ 1/ĝ_k with Σ m ĝ = Σ ĝ, ĝ_k = √(⟨∇L_k, u⟩/m_k) a belief; within 1/L and L",
        "the defaults of this library",
        "the update",
        "0.05 of a step",
    ),
    Entry(
        "paper",
        "own",
        "λ_k = (S − g_k)/((K − 1) S), S = Σg; EMA 0.99 of the weights, floor 0.05, warm-up 100",
        PAPER,
        "norms",
        PASSES,
    ),
    Entry(
        "gaba-optimizer",
        "own",
        "gaba along the step d that the optimizer took: ĝ_k = √(⟨∇L_k, d⟩/m_k)",
        OURS,
        "the update, and optimizer=",
        "0.05 of a step",
    ),
    Entry(
        "gaba-half",
        "own",
        "gaba without the noise of the batch: ĝ_k = ⟨a_k, b_k⟩^½, a and b gradients on two halves",
        "noise as in McCandlish et al. 2018",
        "losses by halves of the batch",
        "2 K − 1 backward passes",
    ),
    Entry(
        "gaba-initial",
        "own",
        "gaba with targets from the first losses: m_k ∝ √L_k(0)/ĝ_k",
        OURS,
        "the update, and losses that begin above 0",
        "0.05 of a step",
    ),
    Entry(
        "inverse",
        "own",
        "m_k ∝ 1/g_k, with the logarithms of the norms smoothed",
        OURS,
        "norms",
        PASSES,
        rule="InverseNorm",
    ),
    Entry(
        "inverse-optimizer",
        "own",
        "m_k ∝ 1/‖P ∇L_k‖, P the steps that the optimizer takes",
        OURS,
        "norms, and optimizer=",
        PASSES,
    ),
    Entry(
        "inverse-half",
        "own",
        "m_k ∝ ⟨a_k, b_k⟩^(−½), a and b the gradients on two halves of the batch",
        "noise as in McCandlish et al. 2018",
        "losses by halves of the batch",
        "2 K − 1 backward passes",
    ),
    Entry(
        "equal-share",
        "own",
        "m_k (Gm)_k equal for all k",
        "Maillard et al. 2010 (equal risk contribution); Nash-MTL, Navon et al. 2022",
        "Gramian",
        PASSES,
        rule="EqualShare",
    ),
    Entry(
        "equal-projection",
        "own",
        "(Gm)_k/g_k equal for all k",
        "IMTL-G, Liu et al. 2021",
        "Gramian",
        PASSES,
        rule="EqualProjection",
    ),
    Entry(
        "sqrt-inverse",
        "own",
        "m_k ∝ g_k^(−½)",
        OURS,
        "norms",
        PASSES,
    ),
    Entry(
        "log-inverse",
        "own",
        "m_k ∝ 1/log(1 + g_k/min g)",
        "the GABA paper, as not sufficient",
        "norms",
        PASSES,
        rule="LogInverse",
    ),
    Entry(
        "rank-inverse",
        "own",
        "m_k ∝ 1/rank of g_k",
        "the GABA paper, as not sufficient",
        "norms",
        PASSES,
        rule="RankInverse",
    ),
)

CONTROLS = (
    Entry(
        "observe",
        "control",
        "m_k = 1, the plain sum bit for bit; norms, shares and cosines are measured",
        OURS,
        "nothing",
        "0.05 of a step",
    ),
    Entry(
        "uniform",
        "control",
        "m_k = 1, the plain sum",
        "",
        "nothing",
        FREE,
    ),
    Entry(
        "fixed",
        "control",
        "m_k = M_k",
        "",
        "nothing",
        FREE,
        argument="M,M,... one multiplier for each task",
    ),
    Entry(
        "single",
        "control",
        "m_TASK = 1, all others 0",
        "",
        "nothing",
        FREE,
        argument="TASK, the one to train",
    ),
    Entry(
        "from-run",
        "control",
        "m_k = the mean multiplier of task k over the second half of another run",
        "",
        "a run",
        FREE,
        argument="RUN, its folder or JSONL record",
    ),
    Entry(
        "inverse-initial",
        "control",
        "m_k = 1/L_k(0), the inverse of the first losses",
        "",
        "losses above 0",
        FREE,
    ),
)

PUBLISHED = (
    Entry(
        "db-mtl",
        "published",
        "m_k = max ‖ĝ‖/‖ĝ_k‖ on ĝ_k, the averaged gradient of log L_k",
        "Lin et al. 2023",
        "gradients",
        "K − 1 backward passes, and K gradients held",
    ),
    Entry(
        "gradnorm",
        "published",
        "m_k learnt by descent on Σ |m_k g_k − mean(m g) r_k^α|, r_k the relative training rate",
        "Chen et al. 2018",
        "norms (of the last layer, where what is shared is a module) and losses",
        "K backward passes through the heads and the last shared layer",
    ),
    Entry(
        "uncertainty",
        "published",
        "m_k = ½ e^{−s_k}, s learnt by descent on Σ ½ e^{−s_k} L_k + ½ s_k",
        "Kendall et al. 2018",
        "losses",
        FREE,
    ),
    Entry(
        "dwa",
        "published",
        "m_k = K softmax(r/T)_k, r_k the mean loss of the last epoch over that before",
        "Liu et al. 2019",
        "losses, and window= the steps of an epoch",
        FREE,
    ),
    Entry(
        "rlw",
        "published",
        "m = softmax of K standard normal numbers",
        "Lin et al. 2022",
        FREE,
        FREE,
    ),
    Entry(
        "scale-invariant",
        "published",
        "m_k = 1/L_k, the gradient of Σ log L_k",
        "Navon et al. 2022",
        "losses above 0",
        FREE,
    ),
    Entry(
        "geometric-mean",
        "published",
        "m_k = (Π L)^{1/K}/(K L_k), the gradient of the geometric mean",
        "Chennupati et al. 2019",
        "losses above 0",
        FREE,
    ),
    Entry(
        "famo",
        "published",
        "m_k ∝ z_k/L_k, z = softmax(ξ), ξ learnt from how much each log L_k falls",
        "Liu et al. 2023",
        "losses above their minimum",
        FREE,
    ),
    Entry(
        "famo-same-step",
        "published",
        "famo, with ξ learnt from η ⟨∇L_k, Σ m ∇L⟩/L_k, the fall of log L_k along one step (step=)",
        "Liu et al. 2023, the published code to first order",
        "Gramian, and losses above their minimum",
        PASSES,
    ),
    Entry(
        "smooth-tchebycheff",
        "published",
        "m_k = K softmax(l/μ)_k/L_k, l_k = log(L_k/n_k), n_k a mean loss of the warm-up",
        "Lin et al. 2024",
        "losses above 0",
        FREE,
    ),
    Entry(
        "uw-so",
        "published",
        "m = softmax(1/(T L)), T = 1 (temperature=)",
        "Kirchdorfer et al. 2024 (soft optimal uncertainty weighting)",
        "losses above 0",
        FREE,
    ),
    Entry(
        "slaw",
        "published",
        "m_k = K (1/s_k)/Σ (1/s), s_k the running standard deviation of L_k over the steps",
        "Crawshaw and Košecká 2021 (scaled loss approximate weighting)",
        "losses",
        FREE,
    ),
    Entry(
        "ntkmtl",
        "published",
        "m_k = K √Σg²/g_k, shortened to ‖Σ m ∇L‖ ≤ 1 (max_norm=); heads get ∇L",
        "Qin et al. 2025 (neural tangent kernel, one loss a batch)",
        "Gramian",
        PASSES,
    ),
    Entry(
        "ntkmtl-sr",
        "published",
        "m_k = √Σλ/√λ_k, √λ_k the largest of the norms at the features of 4 sub-batches (parts=)",
        "Qin et al. 2025 (shared representation)",
        "norms at the features",
        "K passes through the heads",
    ),
)

RELATIVES = (
    Entry(
        "vqgan",
        "relative",
        "m_k = w clamp(g_r/(g_k + 1e-4), 0, 1e4), m_r = 1 (r: reference=, or the first task); "
        "m_k = 0 before start=",
        "Esser et al. 2021 (adaptive discriminator weight)",
        "norms on the last layer (last_layer=)",
        "K passes from the losses to that layer",
    ),
    Entry(
        "encodec",
        "relative",
        "m_k = R (r_k/Σr)/EMA(g_k), g_k the mean over the batch of ‖∂L_k/∂y_b‖, y the output",
        "Défossez et al. 2022 (loss balancer)",
        "norms at the output of what is shared (or features=)",
        "nothing (K passes from the losses to the output, one below)",
    ),
    Entry(
        "pinn",
        "relative",
        "m_k ← 0.9 m_k + 0.1 Σ_j g_j/g_k, in every 1000th step (every=)",
        "Wang et al. 2023 (physics-informed networks)",
        "norms",
        "K − 1 backward passes in every 1000th step",
    ),
    Entry(
        "pinn-annealing",
        "relative",
        "m_k ← 0.9 m_k + 0.1 max|∇L_r|/mean|∇L_k|, m_r = 1 (r: reference=, or the first task), in "
        "every 10th step (every=)",
        "Wang et al. 2021 (learning rate annealing)",
        "largest and mean entries of the gradients",
        "K − 1 backward passes in every 10th step",
    ),
)


def _peer(name: str, formula: str, source: str, also: str) -> Entry:
    cost = f"K backward passes, and on the host {also}"
    return Entry(name, "peer", formula, source, "Gramian", cost)


PEERS: tuple[Entry, ...] = (
    _peer(
        "pcgrad",
        "Σ_k w_k g_k = Σ_k g_k less its part along each g_l it conflicts with, l in random order",
        "Yu et al. 2020",
        "K² projections",
    ),
    _peer(
        "gradvac",
        "as pcgrad, but each cosine is raised to its own running average φ_kl",
        "Wang et al. 2021",
        "K² projections",
    ),
    _peer(
        "mgda",
        "w = argmin ‖Σ_k w_k g_k‖ on the simplex",
        "Désidéri 2012; Sener and Koltun 2018",
        "up to 100 Frank-Wolfe steps",
    ),
    _peer(
        "cagrad",
        "w = 1/K + c ‖ḡ‖/‖g_u‖ u, u = argmin ⟨g_u, ḡ⟩ + c ‖ḡ‖ ‖g_u‖ on the simplex, c = 0.4",
        "Liu et al. 2021",
        "a cone program",
    ),
    _peer(
        "imtl-g",
        "w = G⁺ √diag G, brought to sum 1: equal projections on all unit gradients, signs free",
        "Liu et al. 2021 (IMTL)",
        "a pseudoinverse",
    ),
    _peer(
        "nash-mtl",
        "G w = 1/w: the Nash bargaining solution; ‖Σ_k w_k g_k‖ at most 1",
        "Navon et al. 2022",
        "up to 20 cone programs",
    ),
    _peer(
        "aligned-mtl",
        "w = √λ_min G^(−½) 1/K: the gradients made orthogonal and of one length",
        "Senushkin et al. 2023",
        "an eigendecomposition",
    ),
    _peer(
        "fairgrad",
        "(G w)_k = w_k^(−1/α), α = 2: α-fair progress of all tasks",
        "Ban and Ji 2024",
        "a nonlinear least squares problem",
    ),
    _peer(
        "config",
        "d = Σ_k w_k g_k along U⁺1, U the unit gradients; ‖d‖ = Σ_k ⟨g_k, d/‖d‖⟩",
        "Liu et al. 2024 (ConFIG)",
        "an eigendecomposition",
    ),
    _peer(
        "dualproj",
        "the projection of Σ_k g_k/K on {d: ⟨g_k, d⟩ ≥ 0 for all k}",
        "Lopez-Paz and Ranzato 2017",
        "a quadratic program",
    ),
    _peer(
        "upgrad",
        "the mean of the projections of each g_k on {d: ⟨g_l, d⟩ ≥ 0 for all l}",
        "Quinton and Rey 2024",
        "K quadratic programs",
    ),
    _peer(
        "pcd",
        "the point nearest to g_1 with ⟨g_k, d⟩ ≥ τ ‖g_k‖² for k > 1, norms averaged: 1 is primary",
        "Priority-Constrained Descent 2026",
        "a quadratic program",
    ),
    _peer(
        "krum",
        "w = 1 for the task whose gradient lies nearest to the others', 0 for the others; K ≥ 3",
        "Blanchard et al. 2017",
        "K² distances",
    ),
    _peer(
        "cr-mogm",
        "w ← α w + (1 − α) ŵ, α = 0.9, ŵ the weights of another peer (inner='mgda')",
        "Zhou et al. 2022",
        "what that peer takes",
    ),
)
"""TorchJD's methods. Its Mean, Sum, Constant and Random are "uniform", "fixed:" and "rlw" here.

ExcessMTL, GradDrop and TrimmedMean look at single entries of the gradients, MoDo and SDMGrad at
several batches in a step: no Gramian of one batch serves them.
"""

METHODS: Mapping[str, Entry] = MappingProxyType(
    {entry.name: entry for entry in (*OWN, *CONTROLS, *PUBLISHED, *RELATIVES, *PEERS)}
)
"""All methods by name."""

START: Mapping[str, str] = MappingProxyType(
    {
        "gaba": "balances any number of tasks at 5 % of a step: the default",
        "observe": "changes nothing and says whether a loss dominates",
        "paper": "is the published algorithm, to compare with it",
        "inverse": "balances by exact norms in each step: for 2 or 3 tasks, or as a reference",
        "equal-share": "makes shares of the update equal: for gradients that overlap or conflict",
    }
)
"""The methods to start with → what each does."""
