"""An interval for log Z and one for the likelihood, or a refusal with its reasons."""

from unibound.evaluation.certify.joint import certify_joint
from unibound.evaluation.certify.prior import Base, Certificate, certify

__all__ = ["Base", "Certificate", "certify", "certify_joint"]
