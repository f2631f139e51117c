"""Write the survey that the demo runs on: 20,190 answers from the RAND health insurance experiment.

The data ships inside statsmodels, so nothing is downloaded. Self-rated health, the class to predict, is held there as
three 0/1 columns with "excellent" as the case where all are zero; here it becomes one column of words. Rows and their
order stay as they are.

    python examples/survey_data.py demo/randhie.parquet
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
from statsmodels.datasets import randhie

COLUMNS = {
    "mdvis": "doctor_visits",  # outpatient visits to a doctor in the year
    "lncoins": "log_coinsurance",  # ln(1 + the percentage of the bill that the family pays)
    "idp": "individual_deductible",  # 1 for a plan with an individual deductible
    "lpi": "log_incentive_payment",  # ln of the yearly payment for taking part
    "fmde": "log_max_expenditure",  # ln of the plan's largest expenditure over the coinsurance, 0 where idp is 1
    "physlm": "physical_limitation",  # 1 for a physical limitation
    "disea": "chronic_diseases",  # index of chronic diseases
}
RATINGS = {"hlthg": "good", "hlthf": "fair", "hlthp": "poor"}


def survey() -> pl.DataFrame:
    """The survey as a table with the column ``health``: excellent, good, fair or poor."""
    data = pl.from_pandas(randhie.load_pandas().data)
    health = pl.coalesce(
        *(pl.when(pl.col(column) == 1).then(pl.lit(word)) for column, word in RATINGS.items()), pl.lit("excellent")
    )
    return data.select(*(pl.col(old).alias(new) for old, new in COLUMNS.items()), health.alias("health"))


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python examples/survey_data.py OUT.parquet")
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    table = survey()
    table.write_parquet(out)
    print(f"{out}: {table.height:,} rows, {table.width} columns")


if __name__ == "__main__":
    main()
