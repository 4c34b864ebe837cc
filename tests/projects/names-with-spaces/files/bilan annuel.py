# -*- coding: utf-8 -*-
import sys
from pathlib import Path

taux = float(Path("taux de change").read_text())
total = 0
for ligne in open(sys.argv[1], encoding="utf-8"):
    nom, montant = ligne.rstrip().split(";")
    total += float(montant)
print("total: %.2f" % (total * taux))
resume = Path("pièces jointes") / "Q1 – résumé.txt"
print(resume.read_text(encoding="utf-8").strip())
Path("bilan (final).txt").write_text("%.2f\n" % (total * taux), encoding="utf-8")
