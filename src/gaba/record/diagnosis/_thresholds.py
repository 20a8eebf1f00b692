"""Where a finding begins: every threshold of the diagnosis, with its reason."""

FEW_STEPS = 50
"""Fewer steps than these show no habit, and the first ones are rarely typical of a run: the verdict
says how few they are."""

FEW_MEASURED = 10
"""A median of fewer measured steps than these moves by as much as the norms of single batches."""

UNEQUAL = 2.0
"""Contributions within a factor of two count as equal: norms of single batches scatter by tens of
per cent, and no task is drowned at half the pull of another."""

DROWNS = 10.0
"""A task that pulls ten times as hard as another drowns it: of two orthogonal gradients, the sum is
then within 6 degrees of the louder one alone."""

DOMINATES = 2.0
"""A task dominates when it pulls this many times as hard as all the others together: then at
least two thirds of the summed pull are its own, whatever the number of tasks."""

EARLY = 0.5
"""The part of its steps in which a task rises without a pause, up to the last one, in a run that
has only begun: in a longer one the rise is an answer to norms that changed."""

FADED = 8.0
"""A norm that fell by this factor during the run may be that of a task that has converged. The
default method amplifies no task by more than that over its peak, for the same reason."""

HELD_SHARE = 0.5
"""The part of its measured steps in which a task must be at the limit that keeps it unequal."""

SATURATED_SHARE = 0.01
"""A limit that acts in fewer steps than these catches outliers, which is what it is for."""

AMPLIFIED = 0.5
"""A loss that is multiplied by half the limit is near it: one more doubling of the ratio ends
there."""

FALLS = 0.02
"""A loss falls if its median over the last quarter of the run is this much lower than over the
quarter before. Medians of 50 losses that scatter by 10 % differ by less than that."""

CONFLICT = -0.2
"""Of two gradients of one length with this cosine, each loses a fifth of its progress to the other.
In many dimensions, gradients that have nothing to do with each other have cosines near 0."""

CONFLICT_STEPS = 5
"""The middle half of fewer cosines than these is no spread."""

SCATTERED = 3.0
"""The norm of one task scatters far more than the others' when its logarithm moves this many times
as far from one measurement to the next: all tasks see the same batches, so a common cause moves
all."""

SCATTERED_LEAST = 1.5
"""A norm that changes by less than half from one measurement to the next is a usual one."""

SCATTERED_MOVES = 30
"""The median of so many moves is within a quarter of its limit in nine runs of ten."""

DEAD_STEPS = 10
"""Measured steps in a row with a norm of exactly 0. One batch without a useful example gives a
zero; ten in a row are a detached graph, a dead activation or a constant loss."""

RARE = 0.25
"""A task is rare if fewer steps than this part of those of the most frequent task have it. The
default method treats such a task as rare, too."""

OPPOSED_SHARE = 0.1
"""The part of its measured steps in which a task must oppose the update to be mentioned. A batch
now and then points the other way."""

OPPOSED_MOSTLY = 0.5
"""A task that the update goes against in more than half of its steps loses by it on the whole."""

OPPOSED_COSINE = 0.05
"""How far a task that is known by its norm must point against the update: the sign of a quiet task
at a right angle to it says nothing."""

NON_FINITE_SHARE = 0.01
"""A GradScaler that looks for its scale skips up to one step in a hundred, and no harm is done."""

NON_FINITE_MANY = 0.1
"""A run that loses a tenth of its steps trains on what the loss happens to survive."""

STILL = 1.05
"""Weights have stood still while the largest and the smallest value of each lie within this
ratio: a weight that is 5 % off changes a contribution by 5 %, less than the scatter of norms."""

STILL_SHARE = 0.25
"""How much of the run weights must have stood still: any smoothed weight does so for a while."""

WOULD_DO = 1.25
"""A fixed weighting does the same in a step whose weights are all within this ratio of it: what
is left is a quarter of a contribution, and no repeatable test error follows so small a change."""

WOULD_DO_SHARE = 0.95
"""The part of the second half of the run in which a fixed weighting must do the same. The first
half is left out: warm-up and settling are not what a fixed weighting is compared with."""

NOISY = 0.1
"""Median relative change of a weight from one measurement to the next. An EMA with decay 0.99
passes on a hundredth of a jump, so 10 % a step means that nothing smooths in earnest."""

NOISY_DRIFT = 0.5
"""The part of its way that a weight may get somewhere and still count as noisy; a weight that
moves steadily has 1 and follows its norms."""

SHRUNK = 2.0
"""An update less than this many times shorter is within what any search of the learning rate
covers, and is not reported."""

DEFAULT_LIMIT = 64.0
"""The limit of the default method. Where it would leave one task drowned, the code to switch to
that method names a larger one. Where it leaves less, the smaller limit comes first: it is the safe
one, and the next diagnosis says whether it is enough."""
