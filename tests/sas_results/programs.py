"""Programs of textbook kinds over data that everybody has: name, data, program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    package: str
    item: str
    text: str
    tables: tuple[str, ...] = ()


def _of(name: str, source: str, text: str, *tables: str) -> Program:
    package, _, item = source.partition("/")
    return Program(name, package, item, text, tables)


PROGRAMS = (
    _of(
        "random_coefficients",
        "nlme/Orthodont",
        """proc mixed data=pr covtest; class Subject Sex; model distance = Sex age Sex*age / s;
           random int age / type=un subject=Subject g gcorr v=1,2 vcorr s cl; run;""",
        *("G", "GCorr", "V", "VCorr", "SolutionR", "LRT"),
    ),
    _of(
        "covariates_in_another_order",
        "nlme/Orthodont",
        "proc mixed; class Subject; model distance = age; random age int / type=un subject=Subject s; run;",
        "SolutionR",
    ),
    _of(
        "different_d_by_sex",
        "nlme/Orthodont",
        "proc mixed; class Subject Sex; model distance = Sex|age / s; random int / subject=Subject group=Sex s; run;",
        "SolutionR",
    ),
    _of(
        "toeplitz",
        "nlme/Orthodont",
        """proc mixed; class Subject Sex age; model distance = Sex|age / s; repeated age / type=toep subject=Subject rcorr;
           lsmeans Sex*age / slice=age diff cl; run;""",
        *("RCorr", "LSMeans", "Diffs", "Slices"),
    ),
    _of(
        "random_intercept_and_serial_errors",
        "nlme/Orthodont",
        """proc mixed ic asycov asycorr; class Subject Sex; model distance = Sex age / ddfm=satterth;
           random int / subject=Subject; repeated / type=ar(1) subject=Subject; run;""",
        *("InfoCrit", "AsyCov", "AsyCorr"),
    ),
    _of(
        "oats",
        "nlme/Oats",
        """proc mixed covtest cl; class Block Variety nitro; model yield = Variety|nitro / htype=1,2,3; random Block Block*Variety / s;
           lsmeans Variety / diff adjust=tukey cl; lsmeans nitro / diff=control('0') adjust=dunnett;
           contrast 'linear' nitro -3 -1 1 3 / chisq; run;""",
        *("Tests1", "Tests2", "Tests3", "Diffs", "Contrasts"),
    ),
    _of(
        "oats_kenward_roger",
        "nlme/Oats",
        "proc mixed; class Block Variety nitro; model yield = Variety|nitro / ddfm=kr; random Block Block*Variety; run;",
    ),
    _of(
        "machines_random",
        "nlme/Machines",
        "proc mixed; class Worker Machine; model score = Machine / s cl; random Worker Worker*Machine / s; lsmeans Machine / pdiff; run;",
        *("SolutionR", "Diffs"),
    ),
    _of(
        "machines_compound_symmetry",
        "nlme/Machines",
        "proc mixed; class Worker Machine; model score = Machine; random Machine / subject=Worker type=cs g; run;",
        "G",
    ),
    _of(
        "machines_unstructured",
        "nlme/Machines",
        """proc mixed; class Worker Machine; model score = Machine / ddfm=satterth outp=p;
           random Machine / subject=Worker type=un g gcorr s; run;""",
        *("G", "GCorr", "SolutionR", "OutP"),
    ),
    _of(
        "machines_cholesky",
        "nlme/Machines",
        "proc mixed; class Worker Machine; model score = Machine; random Machine / subject=Worker type=fa0(3) g; run;",
        "G",
    ),
    _of(
        "unequal_variances",
        "nlme/Machines",
        "proc mixed; class Worker Machine; model score = Machine / ddfm=satterth; random Worker; repeated / group=Machine; run;",
        "LRT",
    ),
    _of(
        "nested_without_covariates",
        "lme4/Pastes",
        "proc mixed; class batch cask; model strength = ; random batch cask(batch) / s; run;",
        "SolutionR",
    ),
    _of(
        "crossed", "lme4/Penicillin", "proc mixed covtest; class plate sample; model diameter = / s; random plate sample; run;", "SolutionF"
    ),
    _of(
        "cake",
        "lme4/cake",
        """proc mixed; class recipe replicate temperature; model angle = recipe|temperature / e3; random replicate(recipe);
           estimate 'curve' temperature 5 -1 -4 -4 -1 5 / divisor=28 cl e; run;""",
        *("Estimates", "Coef"),
    ),
    _of(
        "sleep",
        "lme4/sleepstudy",
        """title 'Reaction times'; proc mixed covtest cl=wald; class subject; model reaction = days / s cl ddfm=kr outpm=m residual;
           random int days / sub=subject type=un g s; where days > 1; run;""",
        *("SolutionR", "OutPM"),
    ),
    _of(
        "mares_serial",
        "nlme/Ovary",
        "proc mixed; class Mare; model follicles = Time Time*Time / s; repeated / sub=Mare type=ar(1); run;",
    ),
    _of(
        "mares_spatial_power",
        "nlme/Ovary",
        "proc mixed; class Mare; model follicles = Time; repeated / sub=Mare type=sp(pow)(Time); run;",
    ),
    _of(
        "mares_with_nugget",
        "nlme/Ovary",
        "proc mixed; class Mare; model follicles = Time; repeated / sub=Mare type=sp(exp)(Time) local; run;",
    ),
    _of(
        "rats",
        "nlme/BodyWeight",
        "proc mixed; class Rat Diet; model weight = Diet|Time / s ddfm=bw; random int Time / sub=Rat(Diet) type=un; run;",
    ),
    _of(
        "rat_pups",
        "nlme/RatPupWeight",
        """proc mixed; class Litter sex Treatment; model weight = Treatment|sex Lsize / s; random int / sub=Litter;
           repeated / group=Treatment; lsmeans Treatment / at Lsize=12 diff adjust=bon cl; run;""",
        "Diffs",
    ),
    _of(
        "stools",
        "nlme/ergoStool",
        "proc mixed; class Subject Type; model effort = Type; random Subject; lsmeans Type / diff adjust=sidak cov corr; run;",
        "Diffs",
    ),
    _of(
        "by_sex",
        "nlme/Orthodont",
        "proc mixed; class Subject; by descending Sex; model distance = age / s; random int / sub=Subject; run;",
    ),
    _of("fixed_effects_alone", "nlme/Oats", "proc mixed; class Variety; model yield = Variety nitro / s covb corrb covbi; run;", "InvCovB"),
    _of(
        "empirical",
        "nlme/Orthodont",
        "proc mixed empirical; class Subject Sex; model distance = Sex|age / s chisq; repeated / type=cs subject=Subject; run;",
    ),
    _of(
        "heterogeneous_visits",
        "nlme/Orthodont",
        """proc mixed; class Subject Sex age; model distance = Sex age;
           repeated age / type=arh(1) subject=Subject group=Sex r=1,20; run;""",
        "R",
    ),
    _of(
        "ante_dependence",
        "nlme/Orthodont",
        "proc mixed method=ml; class Subject Sex age; model distance = Sex age; repeated age / type=ante(1) subject=Subject; run;",
    ),
    _of(
        "starting_values",
        "nlme/Oats",
        """proc mixed; class Block Variety nitro; model yield = Variety nitro; random Block Block*Variety;
           parms (100 200) (100) (150); run;""",
        "ParmSearch",
    ),
)
