"""What ties a modality to the hospital: state machines that outlive the process (PS3.4 F, J, K).

They are kept in the archive's folder `state`, apart from the index: no instance can tell them again.
"""

from pacs_core.workflow.commitment import Commitments, Patience
from pacs_core.workflow.owner import Owner
from pacs_core.workflow.state import State
from pacs_core.workflow.step import StepId
from pacs_core.workflow.transactions import Stage, Transaction
from pacs_core.workflow.worklist import Worklist

__all__ = ["Commitments", "Owner", "Patience", "Stage", "State", "StepId", "Transaction", "Worklist"]
