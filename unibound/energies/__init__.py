"""Energies: what a Boltzmann prior is made of, and what moves its states."""
