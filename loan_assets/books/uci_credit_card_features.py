"""The UCI book's features: what the model sees of a client, one named function per lending idea.

Here: formulas over the received columns (`_1` is the newest month), in the arithmetic of `formulas`, and the sentence a
refused client reads for each. Not here: the columns themselves (`uci_credit_card`). A function's docstring is the
feature's meaning in the catalogue, its name the feature's name, its parameters the columns it reads.
"""

from typing import Any

from loan_assets.books import Feature
from loan_assets.books.formulas import happened, larger, positive, share, smaller


def education_level(education: Any) -> Any:
    """Education code as received."""
    return education * 1.0


def latest_pay_status(pay_status_1: Any) -> Any:
    """Payment status on the newest statement."""
    return pay_status_1 * 1.0


def latest_bill(bill_amount_1: Any) -> Any:
    """Balance on the newest statement."""
    return bill_amount_1 * 1.0


def headroom(credit_limit: Any, bill_amount_1: Any) -> Any:
    """Credit limit left unused."""
    return credit_limit - bill_amount_1


def utilisation(bill_amount_1: Any, credit_limit: Any) -> Any:
    """Newest balance as a share of the limit."""
    return share(bill_amount_1, credit_limit)


def utilisation_change(bill_amount_1: Any, bill_amount_2: Any, credit_limit: Any) -> Any:
    """Change of balance in the last month, as a share of the limit."""
    return share(bill_amount_1 - bill_amount_2, credit_limit)


def average_utilisation(
    bill_amount_1: Any,
    bill_amount_2: Any,
    bill_amount_3: Any,
    bill_amount_4: Any,
    bill_amount_5: Any,
    bill_amount_6: Any,
    credit_limit: Any,
) -> Any:
    """Average balance over six months as a share of the limit."""
    billed = bill_amount_1 + bill_amount_2 + bill_amount_3 + bill_amount_4 + bill_amount_5 + bill_amount_6
    return share(billed / 6, credit_limit)


def utilisation_trend(
    bill_amount_1: Any,
    bill_amount_2: Any,
    bill_amount_3: Any,
    bill_amount_4: Any,
    bill_amount_5: Any,
    bill_amount_6: Any,
    credit_limit: Any,
) -> Any:
    """Average balance of the last three months less that of the three before, as a share of the limit."""
    recent = bill_amount_1 + bill_amount_2 + bill_amount_3
    before = bill_amount_4 + bill_amount_5 + bill_amount_6
    return share((recent - before) / 3, credit_limit)


def average_spending(
    bill_amount_1: Any,
    bill_amount_6: Any,
    payment_amount_1: Any,
    payment_amount_2: Any,
    payment_amount_3: Any,
    payment_amount_4: Any,
    payment_amount_5: Any,
    credit_limit: Any,
) -> Any:
    """Average monthly spending over five months as a share of the limit."""
    paid = payment_amount_1 + payment_amount_2 + payment_amount_3 + payment_amount_4 + payment_amount_5
    return share((bill_amount_1 - bill_amount_6 + paid) / 5, credit_limit)


def payment_share(
    payment_amount_1: Any,
    payment_amount_2: Any,
    payment_amount_3: Any,
    payment_amount_4: Any,
    payment_amount_5: Any,
    bill_amount_2: Any,
    bill_amount_3: Any,
    bill_amount_4: Any,
    bill_amount_5: Any,
    bill_amount_6: Any,
) -> Any:
    """Paid over five months as a share of the balances due."""
    paid = payment_amount_1 + payment_amount_2 + payment_amount_3 + payment_amount_4 + payment_amount_5
    recent = positive(bill_amount_2) + positive(bill_amount_3) + positive(bill_amount_4)
    return share(paid, recent + positive(bill_amount_5) + positive(bill_amount_6))


def total_payments(
    payment_amount_1: Any,
    payment_amount_2: Any,
    payment_amount_3: Any,
    payment_amount_4: Any,
    payment_amount_5: Any,
    payment_amount_6: Any,
) -> Any:
    """Paid in six months."""
    recent = payment_amount_1 + payment_amount_2 + payment_amount_3
    return recent + payment_amount_4 + payment_amount_5 + payment_amount_6


def smallest_payment(
    payment_amount_1: Any,
    payment_amount_2: Any,
    payment_amount_3: Any,
    payment_amount_4: Any,
    payment_amount_5: Any,
    payment_amount_6: Any,
) -> Any:
    """The smallest monthly payment in six months."""
    recent = smaller(smaller(payment_amount_1, payment_amount_2), payment_amount_3)
    return smaller(recent, smaller(smaller(payment_amount_4, payment_amount_5), payment_amount_6))


def payment_two_months_ago(payment_amount_3: Any) -> Any:
    """Paid two months before the newest statement."""
    return payment_amount_3 * 1.0


def months_in_delay(
    pay_status_1: Any, pay_status_2: Any, pay_status_3: Any, pay_status_4: Any, pay_status_5: Any, pay_status_6: Any
) -> Any:
    """Months behind with payment, out of six."""
    recent = happened(pay_status_1 > 0) + happened(pay_status_2 > 0) + happened(pay_status_3 > 0)
    return recent + happened(pay_status_4 > 0) + happened(pay_status_5 > 0) + happened(pay_status_6 > 0)


def months_paid_in_full(
    pay_status_1: Any, pay_status_2: Any, pay_status_3: Any, pay_status_4: Any, pay_status_5: Any, pay_status_6: Any
) -> Any:
    """Months in which the balance was paid in full, out of six."""
    recent = happened(pay_status_1 == -1) + happened(pay_status_2 == -1) + happened(pay_status_3 == -1)
    return recent + happened(pay_status_4 == -1) + happened(pay_status_5 == -1) + happened(pay_status_6 == -1)


def recent_delay(pay_status_1: Any, pay_status_2: Any, pay_status_3: Any) -> Any:
    """Months behind, added up over the last three statements."""
    return positive(pay_status_1) + positive(pay_status_2) + positive(pay_status_3) * 1.0


def total_delay(
    pay_status_1: Any, pay_status_2: Any, pay_status_3: Any, pay_status_4: Any, pay_status_5: Any, pay_status_6: Any
) -> Any:
    """Months behind, added up over six statements."""
    earlier = positive(pay_status_4) + positive(pay_status_5) + positive(pay_status_6)
    return recent_delay(pay_status_1, pay_status_2, pay_status_3) + earlier


def fading_delay(
    pay_status_1: Any, pay_status_2: Any, pay_status_3: Any, pay_status_4: Any, pay_status_5: Any, pay_status_6: Any
) -> Any:
    """Months behind over six statements, the newest weighing most."""
    recent = positive(pay_status_1) * 6 + positive(pay_status_2) * 5 + positive(pay_status_3) * 4
    return (recent + positive(pay_status_4) * 3 + positive(pay_status_5) * 2 + positive(pay_status_6)) / 21


def worst_delay(
    pay_status_1: Any, pay_status_2: Any, pay_status_3: Any, pay_status_4: Any, pay_status_5: Any, pay_status_6: Any
) -> Any:
    """The longest delay in six months."""
    recent = larger(larger(pay_status_1, pay_status_2), pay_status_3)
    return positive(larger(recent, larger(larger(pay_status_4, pay_status_5), pay_status_6))) * 1.0


def delayed_utilisation(pay_status_1: Any, bill_amount_1: Any, credit_limit: Any) -> Any:
    """Months behind now, times the share of the limit in use."""
    return positive(pay_status_1) * positive(share(bill_amount_1, credit_limit))


# Features that measure one idea share its sentence: a client is told the idea once, with the weight of all of them.
LATE = "You were late with payments in recent months."
NEAR_THE_LIMIT = "Your balance is high compared with your credit limit."
PAID_LITTLE = "You paid little in recent months."

FEATURES = (
    Feature(function=education_level, reason="Your recorded level of education."),
    Feature(function=latest_pay_status, reason="Your most recent payment was late or only partly made.", unit="months"),
    Feature(function=latest_bill, reason="The balance on your latest statement.", unit="NT$"),
    Feature(function=headroom, reason=NEAR_THE_LIMIT, unit="NT$"),
    Feature(function=utilisation, reason=NEAR_THE_LIMIT),
    Feature(function=utilisation_change, reason="Your balance changed sharply in the last month."),
    Feature(function=average_utilisation, reason=NEAR_THE_LIMIT),
    Feature(function=utilisation_trend, reason="Your balance has been growing over the last six months."),
    Feature(function=average_spending, reason="Your monthly spending compared with your credit limit."),
    Feature(function=payment_share, reason="Your payments are small compared with the balances due.", direction=-1),
    Feature(function=total_payments, reason=PAID_LITTLE, unit="NT$", direction=-1),
    Feature(function=smallest_payment, reason=PAID_LITTLE, unit="NT$", direction=-1),
    Feature(function=payment_two_months_ago, reason=PAID_LITTLE, unit="NT$", direction=-1),
    Feature(function=months_in_delay, reason=LATE, unit="months", direction=1),
    Feature(
        function=months_paid_in_full,
        reason="The balance was paid in full in few of the last six months.",
        unit="months",
    ),
    Feature(function=recent_delay, reason=LATE, unit="months", direction=1),
    Feature(function=total_delay, reason=LATE, unit="months", direction=1),
    Feature(function=fading_delay, reason=LATE, unit="months", direction=1),
    Feature(
        function=worst_delay,
        reason="At least one payment in the last six months was long overdue.",
        unit="months",
        direction=1,
    ),
    Feature(
        function=delayed_utilisation, reason="You are behind with payments while your balance is high.", direction=1
    ),
)
