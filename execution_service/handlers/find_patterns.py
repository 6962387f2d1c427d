"""Task type `find_patterns`: finds patterns in a text, in a series of measurements, or in transactions.

A task holds one of the three.

`text`: regular expressions in the syntax of RE2, which takes time linear in the text and so has neither look-around nor
back-references (R. Cox, "Regular Expression Matching in the Wild", 2010). Matches of one pattern do not overlap; their
places count code points. `\\w`, `\\d`, `\\b` and `[[:alpha:]]` are about ASCII, `\\pL` about all scripts. Together all
patterns have at most 10,000 matches.

`series`: in this order, as each step takes away what would mislead the next,

- season: the median of each phase, after a moving average over one period; it adds to the level or multiplies it.
  Without a period, one is found at the highest peak of the autocorrelation.
- trend: the Mann-Kendall test (H. B. Mann, 1945; M. G. Kendall, 1975) and the median slope of all pairs of values
  (P. K. Sen, 1968), of more than 2,000 values of the pairs half the series apart (H. Theil, 1950).
- outliers: values more than 3.5 robust standard deviations from the median of the eleven around (F. R. Hampel, 1974;
  B. Iglewicz and D. Hoaglin, 1993).
- changes: segments that are levels or lines, with the fewest changes that explain the series (PELT: R. Killick,
  P. Fearnhead and I. A. Eckley, 2012), where noise may have a memory of one step.

`transactions`: sets of items that occur together in at least the part `min_support` of all transactions (Eclat: M. J.
Zaki, 2000), and association rules between their parts with support, confidence and lift (R. Agrawal and R. Srikant,
1994; S. Brin et al., 1997).
"""

from execution_service.handlers.patterns.models import (
    EXAMPLE_SERIES,
    EXAMPLE_TEXT,
    EXAMPLE_TRANSACTIONS,
    FindPatternsData,
    FindPatternsResult,
)
from execution_service.handlers.patterns.series import find_in_series
from execution_service.handlers.patterns.text import find_in_text
from execution_service.handlers.patterns.transactions import find_in_transactions
from headrace.tasks import ErrorKind, Limits, TaskContext, task

_EXAMPLES = ({"text": EXAMPLE_TEXT}, {"series": EXAMPLE_SERIES}, {"transactions": EXAMPLE_TRANSACTIONS})
_ERRORS = (
    ErrorKind("invalid_pattern", False, "A regular expression is wrong; the message says where."),
    ErrorKind("unsupported_pattern", False, "A regular expression uses what RE2 does not have, such as look-around."),
    ErrorKind("pattern_too_large", False, "A regular expression has too many repetitions, groups or instructions."),
    ErrorKind("too_short", False, "The series holds fewer than three of the periods asked for."),
    ErrorKind("cost_too_high", False, "The search would take too long; the message names the product and its limit."),
)


# Nothing here passes with time: a second attempt is for a worker that was lost.
@task("find_patterns", timeout=120, max_attempts=2, examples=_EXAMPLES, limits=Limits(memory_mib=768), errors=_ERRORS)
def find_patterns(data: FindPatternsData, context: TaskContext) -> FindPatternsResult:
    """Find regular expressions in a text; trend, season and changes in a series; or items that occur together."""
    if data.text is not None:
        return FindPatternsResult(text=find_in_text(data.text, context))
    if data.series is not None:
        return FindPatternsResult(series=find_in_series(data.series, context))
    assert data.transactions is not None, "the data's validator asks for one of the three"
    return FindPatternsResult(transactions=find_in_transactions(data.transactions, context))
