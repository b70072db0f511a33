"""PROC MIXED programs of the kinds that textbooks, the manual and trial reports print, with what each means in our terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """A program; formula, residual, variance and df as the translation should have them."""

    name: str
    program: str
    formula: str
    df: str
    residual: str | None = None
    variance: str = ""
    vcov: str = "asymptotic"
    method: str = "REML"


CASES = (
    Case(
        "trial_random_intercept",
        """proc mixed data=data method=reml; class USUBJID; model BCVA_CHG = VISITN BCVA_BL / solution;
           random intercept / subject=USUBJID; run;""",
        "BCVA_CHG ~ 1 + VISITN + BCVA_BL + (1 | USUBJID)",
        "containment",
    ),
    Case(
        "split_plot",
        """proc mixed;
           class A B Block;
           model Y = A|B;
           random Block A*Block;
           estimate 'a1 mean narrow' intercept 1 A 1 B .5 .5 A*B .5 .5 |
                    Block .25 .25 .25 .25
                    A*Block .25 .25 .25 .25  0 0 0 0  0 0 0 0;
           estimate 'a1 mean broad' intercept 1 a 1 b .5 .5 A*B .5 .5;
           run;""",
        "Y ~ 1 + A + B + A:B + (1 | Block) + (1 | A:Block)",
        "containment",
    ),
    Case(
        "growth_curves_unstructured",
        """ods output tests3=t;
           proc mixed data=pr method=ml covtest;
             class Person Gender;
             model y = Gender Age Gender*Age / s;
             repeated / type=un subject=Person r;
           run;""",
        "y ~ 1 + Gender + Age + Age:Gender",
        "between-within",
        residual="us(1 | Person)",
        method="ML",
    ),
    Case(
        "growth_curves_by_gender",
        """proc mixed data=pr method=ml;
             class Person Gender;
             model y = Gender Age Gender*Age / s;
             repeated / type=cs subject=Person group=Gender;
           run;""",
        "y ~ 1 + Gender + Age + Age:Gender",
        "between-within",
        residual="cs(1 | Gender / Person)",
        method="ML",
    ),
    Case(
        "random_coefficients",
        """proc mixed data=rc;
             class Batch;
             model Y = Month / s;
             random Int Month / type=un sub=Batch s;
           run;""",
        "Y ~ 1 + Month + (1 + Month | Batch)",
        "containment",
    ),
    Case(
        "random_coefficients_and_lack_of_fit",
        """proc mixed data=rc; class Batch Monthc; model Y = Month / s;
           random Int Month Monthc / sub=Batch s; run;""",
        "Y ~ 1 + Month + (1 | Batch) + (0 + Month | Batch) + (1 | Batch:Monthc)",
        "containment",
    ),
    Case(
        "line_source_sprinkler",
        """proc mixed;
           class Block Cult Dir Irrig;
           model Y = Cult|Dir|Irrig@2;
           random Block Block*Dir Block*Irrig;
           repeated / type=toep(4) sub=Block*Cult r;
           lsmeans Cult|Irrig;
           estimate 'Bridger vs Luke' Cult 1 -1 0;
           estimate 'Linear Irrig' Irrig -5 -3 -1 1 3 5;
           run;""",
        "Y ~ 1 + Cult + Dir + Cult:Dir + Irrig + Cult:Irrig + Dir:Irrig + (1 | Block) + (1 | Block:Dir) + (1 | Block:Irrig)",
        "containment",
        residual="toep(1 | Block:Cult, 4)",
    ),
    Case(
        "two_way_with_a_grid_of_parameters",
        """proc mixed data=hh asycov covtest; class a b; model y = a / outp=predicted; random b a*b; lsmeans a;
           parms (17 to 20 by .1) (.3 to .4 by .005) (1.0); run;""",
        "y ~ 1 + a + (1 | b) + (1 | a:b)",
        "containment",
    ),
    Case(
        "incomplete_blocks",
        """proc mixed data=bib; class block treatment; model response = treatment / ddfm=satterth; random block;
           lsmeans treatment / pdiff adjust=tukey cl; run;""",
        "response ~ 1 + treatment + (1 | block)",
        "satterthwaite",
    ),
    Case(
        "multi_location",
        """proc mixed data=multiloc covtest cl;
             class location block treatment;
             model adg = treatment / ddfm=kr;
             random location block(location) location*treatment;
             lsmeans treatment / diff=control('1') adjust=dunnett;
             contrast 'trt 1 v 2-4' treatment 3 -1 -1 -1, treatment 0 1 -1 0 / chisq;
           run;""",
        "adg ~ 1 + treatment + (1 | location) + (1 | location:block) + (1 | location:treatment)",
        "kenward-roger",
        vcov="kenward-roger",
    ),
    Case(
        "nested_subject",
        """proc mixed data=pupils; class school class pupil; model score = ses / s ddfm=bw;
           random int ses / sub=school type=un; random int / sub=class(school); run;""",
        "score ~ 1 + ses + (1 + ses | school) + (1 | school:`class`)",
        "between-within",
    ),
    Case(
        "school_effects",
        """PROC MIXED NOCLPRINT NOITPRINT COVTEST DATA=HSB12; CLASS SCHOOL;
           MODEL MATHACH = MEANSES SECTOR CSES MEANSES*CSES SECTOR*CSES / SOLUTION DDFM=BW NOTEST;
           RANDOM INTERCEPT CSES / TYPE=UN SUB=SCHOOL; RUN;""",
        "MATHACH ~ 1 + MEANSES + SECTOR + CSES + MEANSES:CSES + SECTOR:CSES + (1 + CSES | SCHOOL)",
        "between-within",
    ),
    Case(
        "heart_rate_spatial_power",
        """proc mixed data=hr order=data; class patient drug hours; model hr = drug|hours basehr;
           repeated hours / type=sp(pow)(time) sub=patient(drug) local r=1,3 rcorr; run;""",
        "hr ~ 1 + drug + hours + drug:hours + basehr",
        "between-within",
        residual="sp_pow(time | drug:patient) + local",
    ),
    Case(
        "uniformity_trial",
        """proc mixed data=alliance; class entry rep; model yield = entry / outp=p;
           repeated / subject=intercept type=sp(sph)(latitude longitude) local;
           parms (10) (60) (10); lsmeans entry; run;""",
        "`yield` ~ 1 + entry",
        "between-within",
        residual="sp_sph(latitude, longitude | `all rows`) + local",
    ),
    Case(
        "unequal_variances",
        """proc mixed data=pk; class trt; model logpk = trt / ddfm=satterthwaite cl alpha=0.1;
           repeated / group=trt; lsmeans trt / diff cl alpha=0.1; run;""",
        "logpk ~ 1 + trt",
        "satterthwaite",
        variance="trt",
    ),
    Case(
        "mmrm",
        """title 'Change from baseline';
           proc mixed data=adeff method=reml;
             where paramcd = 'CHG' and avisitn > 0 and fasfl eq 'Y';
             class usubjid trt01p(ref='Placebo') avisit region / ref=last;
             model chg = trt01p avisit trt01p*avisit base base*avisit region / ddfm=kr s cl;
             repeated avisit / subject=usubjid type=un r rcorr;
             lsmeans trt01p*avisit / pdiff cl alpha=0.05 slice=avisit;
             estimate 'Active v placebo, week 24' trt01p 1 -1 trt01p*avisit 0 0 1 0 0 -1 / cl;
             ods output lsmeans=lsm diffs=dif estimates=est;
           run; quit;""",
        "chg ~ 1 + trt01p + avisit + trt01p:avisit + base + base:avisit + region",
        "kenward-roger",
        residual="us(avisit | usubjid)",
        vcov="kenward-roger",
    ),
    Case(
        "mmrm_first_order_kr",
        """proc mixed data=a; class id arm visit; model y = arm*visit / noint ddfm=kenwardroger(firstorder);
           repeated visit / subject=id type=arh(1); run;""",
        "y ~ 0 + arm:visit",
        "kenward-roger-linear",
        residual="ar1h(visit | id)",
        vcov="kenward-roger-linear",
    ),
    Case(
        "mmrm_by_arm_sandwich",
        """proc mixed data=a empirical; class id arm visit; model y = arm|visit / s;
           repeated visit / subject=id(arm) group=arm type=toeph; run;""",
        "y ~ 1 + arm + visit + arm:visit",
        "between-within",
        residual="toeph(visit | arm / `id(arm)`)",
        vcov="CR0",
    ),
    Case(
        "ante_dependence",
        """proc mixed data=a; class animal trt day; model y = trt day trt*day; repeated day / subject=animal type=ante(1); run;""",
        "y ~ 1 + trt + day + trt:day",
        "between-within",
        residual="adh(day | animal)",
    ),
    Case(
        "doubly_multivariate",
        """proc mixed data=d; class child var year; model y = var var*year; repeated var year / type=un@ar(1) subject=child; run;""",
        "y ~ 1 + var + var:year",
        "between-within",
        residual="us@ar1(var, year | child)",
    ),
    Case(
        "average_bioequivalence",
        """proc mixed data=be; class subject sequence period formulation;
           model lnauc = sequence period formulation / ddfm=satterth solution covb;
           random formulation / type=csh sub=subject g v;
           repeated / grp=formulation sub=subject r;
           contrast 'F' formulation 1 -1;
           estimate 'T - R' formulation 1 -1 / cl alpha=0.1 e; run;""",
        "lnauc ~ 1 + sequence + period + formulation + csh(0 + formulation | subject)",
        "satterthwaite",
        variance="formulation",
    ),
    Case(
        "two_by_two_crossover",
        """proc mixed data=be; class seq subj per trt; model logauc = seq per trt / ddfm=kr; random subj(seq);
           estimate 'T/R' trt -1 1 / cl alpha=.1; run;""",
        "logauc ~ 1 + seq + per + trt + (1 | seq:subj)",
        "kenward-roger",
        vcov="kenward-roger",
    ),
    Case(
        "strip_plot",
        """proc mixed data=s; class rep a b; model y = a b a*b; random rep rep*a rep*b; lsmeans a*b / slice=(a b); run;""",
        "y ~ 1 + a + b + a:b + (1 | rep) + (1 | rep:a) + (1 | rep:b)",
        "containment",
    ),
    Case(
        "randomised_blocks_with_subject",
        "proc mixed data=rcb; class block trt; model y = trt; random trt / subject=block; run;",
        "y ~ 1 + trt + (1 | block:trt)",
        "containment",
    ),
    Case(
        "analysis_of_covariance",
        """proc mixed data=a; class trt block; model y = trt x trt*x x*x / htype=1,2,3 e3 intercept;
           random block; lsmeans trt / at x=10 diff; lsmeans trt / at means om; run;""",
        "y ~ 1 + trt + x + x:trt + I(x**2) + (1 | block)",
        "containment",
    ),
    Case(
        "smoothing_spline",
        "proc mixed data=s; model y = x / outp=p; random z1-z4 / type=toep(1) s; run;",
        "y ~ 1 + x + id(0 + z1 + z2 + z3 + z4 | `all rows`)",
        "containment",
    ),
    Case(
        "weighted",
        "proc mixed data=w; class lab; model y = dose; random lab; weight n; by sex descending day; id lab; run;",
        "y ~ 1 + dose + (1 | lab)",
        "containment",
    ),
    Case(
        "chosen_rows",
        "proc mixed data=w(keep=y0 lab dose day drop=x rename=(y0=y) where=(dose > 1) firstobs=2 obs=50); "
        "class lab(ref='2' descending); model y = dose; random lab; by day notsorted; run;",
        "y ~ 1 + dose + (1 | lab)",
        "containment",
    ),
    Case(
        "factor_analytic_variety_trial",
        "proc mixed data=v; class env variety; model y = env; random env / subject=variety type=fa(1); run;",
        "y ~ 1 + env + fa(0 + env | variety, 1)",
        "containment",
    ),
    Case(
        "combinations_and_slices",
        """proc mixed data=t method=type3 nobound covtest; class id a b; model y = a b a*b x / lcomponents
             influence(effect=id select=1 3 keep=2 iter=5 estimates); random id;
           where not missing(x) and upcase(substr(site, 1, 1)) in: ('A') and mod(id, 2) + 1 > (x - 1) ** 2 and k in (1:3);
           lsmestimate a 'A - C' 1 0 -1, 2 -1 -1 divisor=2 / joint adjust=bon lower testvalue=(0 1) cl;
           lsmestimate a*b 'cells' [1, 1 2] [-1, 2 2]; slice a*b / sliceby=b diff nof means; run;""",
        "y ~ 1 + a + b + a:b + x + (1 | id)",
        "containment",
    ),
)
