/* A pair of two voters: who may go on alone, and what becomes of the data when an operator forces a copy. Arbitration manual, or fencing with
 * -DFENCING=1.
 * What pair.pml takes for one atomic record is a copy on each voter here: incarnation, lineage, voters, Primary, in-sync set. Caches, and when a
 * mark may go, are pair.pml's. Generations are the code's (mirror/genid), and so is the judgement of a handshake (mirror/engine/judge.go).
 * A copy holds a version of one block; anc[v] are the versions that it was written over, so that lines can be told apart. An unfinished
 * copy that is promoted by force is a version of its own, which has only what its old and its new contents had in common.
 * Mutants (-DM15 .. -DM26) each drop one rule; each must violate an assertion, the two plain modes none. */

#ifndef MAXC
#define MAXC 1          /* crashes */
#endif
#ifndef MAXF
#define MAXF 1          /* promotions by force; as many copies may be given up by the operator */
#endif
#ifndef MAXW
#define MAXW 1          /* writes, beside one for each force */
#endif
#ifndef MAXI
#define MAXI 3          /* the highest incarnation */
#endif
#ifndef MAXG
#define MAXG 8          /* the last generation; up to 14 */
#endif
#ifndef FENCING
#define FENCING 0
#endif

/* the rules, each with the mutant that drops it */
#ifdef M15
#define SELFALONE 1     /* a Secondary goes on alone by itself */
#else
#define SELFALONE 0
#endif
#ifdef M16
#define ANYINC 1        /* a node of a lower incarnation is taken for one of the group */
#else
#define ANYINC 0
#endif
#ifdef M17
#define OLDSTATE 1      /* it rejoins with the ledger it had */
#else
#define OLDSTATE 0
#endif
#ifdef M18
#define HIGHERWINS 1    /* the higher incarnation wins, whoever founded the lower one */
#else
#define HIGHERWINS 0
#endif
#ifdef M19
#define ALONESAME 1     /* the first write that is answered alone begins no generation */
#else
#define ALONESAME 0
#endif
#ifdef M20
#define FORCESAME 1     /* an unfinished copy that is promoted by force keeps its generation */
#else
#define FORCESAME 0
#endif
#ifdef M21
#define LOOSE 0         /* a node that is forced before it has rejoined supersedes the group that it left behind */
#else
#define LOOSE 1
#endif
#ifdef M22
#define UNKNOWNOK 1     /* a fence of unknown outcome counts */
#else
#define UNKNOWNOK 0
#endif
#ifdef M23
#define NOFENCE 1       /* the Secondary goes on without a fence */
#else
#define NOFENCE 0
#endif
#ifdef M24
#define NODELAY 1       /* the Secondary fences as soon as the Primary does */
#else
#define NODELAY 0
#endif
#ifdef M25
#define BOOTFENCE 1     /* a node that has not met its peer since it began fences it */
#else
#define BOOTFENCE 0
#endif
#ifdef M26
#define STALEFENCE 1    /* a confirmation counts although the two have met since */
#else
#define STALEFENCE 0
#endif

#define OTHER(n) (1-(n))
#define BIT(n)   (1<<(n))
#define NONE 2

/* the ledger, a copy on each voter */
bool up[2]; byte inc[2]; byte line[2]; byte loose[2]; byte vot[2]; byte prim[2]; byte ins[2]; bool join[2];
bool lab;
/* the mirror */
bool role[2]; bool lease[2]; bool susp[2];
byte disk[2]; bool mixed[2]; /* what the copy says of itself; it is part old, part new */
byte vol[2]; byte anc[8]; bool dirty[2]; bool al[2];
byte infl[2]; bool ld[2]; bool pd[2];
bool conn; bool syncing; bool told; bool adopted; byte src;
byte cur[2]; byte bm[2]; int hist[2]; byte nextg;
byte nextv; byte acked; byte owed; /* answered; answered and not lost by an operator's word */
byte crashes; byte forces; byte given;
bool excuse;            /* an operator forced a node although the other served, or could by itself; with fencing any that is up may */
#if FENCING
byte fq[2];             /* fence of the peer: 0 none, 1 asked for, 2 confirmed, 3 refused or of unknown outcome, 4 asked for before they met again, or in a former life */
bool met[2];            /* has met its peer since it began */
bool felled[2]; bool botched; /* off by a fence; a device did not do what it was asked */
#endif

#if FENCING
#define BORN(n) felled[n]=false
#define ASKED(n) (fq[n]==1 || fq[n]==4)
#define MET     met[0]=true; met[1]=true
#else
#define BORN(n) skip
#define ASKED(n) false
#define MET     skip
#endif
#define UTD 0
#define OUT 1           /* Outdated */
#define INC 2           /* Inconsistent: part old, part new */
#define NEW 3           /* given up: Inconsistent, all of it wanted */

/* loose: incarnations that were founded by a node which had not rejoined. Founder of incarnation i by the ledger of n: 0 for the first, else node+1 */
#define FO(n,i)  ((line[n]>>(2*((i)-1))) & 3)
#define RE       (up[0] && up[1] && lab)
#define SG       (!join[0] && !join[1] && (ANYINC || (inc[0]==inc[1] && FO(0,inc[0])==FO(1,inc[1]))))
#define ALONE(n) (vot[n]==BIT(n))
/* n can change the ledger, and renew its lease */
#define Q(n)     (up[n] && !join[n] && (ALONE(n) || (RE && SG && (ANYINC || !ALONE(OTHER(n))))))
#define BELOW(n,m) (inc[n]<inc[m] && (HIGHERWINS || (FO(m,inc[n])==FO(n,inc[n]) && !(loose[m] & BIT(inc[n]+1)))))
#define APART    (!join[0] && !join[1] && (inc[0]==inc[1] -> FO(0,inc[0])!=FO(1,inc[1]) : (inc[0]<inc[1] -> !BELOW(0,1) : !BELOW(1,0))))
#define SERVES(n) (role[n] && lease[n])
#define CONT(n)  (anc[vol[n]] | BIT(vol[n]))
#define CURRENT(n) (disk[n]<INC)

/* generations: 0 none, 1 just created, 2 the first, then minted ones up to 14; what is filled from g carries g|16; 31 is a base nobody had */
#define FRESH 1
#define EVERY 31
#define FOL(n,g)  ((g)==bm[n] || (bm[n]!=0 && (g)==(cur[n]|16)))
#define ANC(n,g)  ((g)>FRESH && (bm[n]==(g) || (hist[n] & (1<<(g)))))
#define PUSH(n,g) hist[n] = (hist[n] | (1<<(g))) & 2147483644
#define BITMAP(n,o) (cur[n]!=FRESH && cur[o]!=FRESH && cur[n]!=cur[o] && FOL(n,cur[o]) && !FOL(o,cur[n]))
#define FULL(n,o) (cur[n]!=FRESH && (cur[o]==FRESH || (cur[n]!=cur[o] && !FOL(n,cur[o]) && !FOL(o,cur[n]) && ANC(n,cur[o]) && !ANC(o,cur[n]))))
#define SAMEGEN   (cur[0]==cur[1])
#define APARTGEN  (!SAMEGEN && !BITMAP(0,1) && !BITMAP(1,0) && !FULL(0,1) && !FULL(1,0))

inline mint(n) {
  if :: bm[n]==0 -> bm[n]=cur[n] :: else -> PUSH(n, cur[n]|16); PUSH(n, cur[n]) fi;
  nextg++; cur[n]=nextg
}
inline past(n) { if :: bm[n]==EVERY -> skip :: else -> PUSH(n, bm[n]); PUSH(n, cur[n]) fi }
inline rebase(n) { if :: bm[n]!=0 -> PUSH(n, cur[n]|16) :: else fi; past(n); bm[n]=EVERY; nextg++; cur[n]=nextg }
inline begin(o, n) { if :: cur[o]!=(cur[n]|16) -> past(o); cur[o]=(cur[n]|16); bm[o]=0 :: else fi }
inline finish(n) { if :: bm[n]!=0 -> past(n); cur[n]=(cur[n]|16); bm[n]=0 :: else fi }
inline inLine(n) { if :: bm[n]!=0 -> PUSH(n, bm[n]); bm[n]=0 :: else fi }
inline adopt(o, n) { PUSH(o, cur[o]); PUSH(o, bm[o]); PUSH(o, bm[n]); hist[o]=hist[o] | hist[n]; cur[o]=cur[n]; bm[o]=0 }

/* the session ends: what was in flight may be lacking over there */
inline drop() {
  if :: infl[0]!=0 -> dirty[0]=true :: else fi;
  if :: infl[1]!=0 -> dirty[1]=true :: else fi;
  conn=false; syncing=false; told=false; adopted=false; src=0; pd[0]=false; pd[1]=false
}
inline abort(n) { drop(); role[n]=false; lease[n]=false; infl[n]=0; ld[n]=false; al[n]=false }
inline crash(n) {
  drop(); up[n]=false; role[n]=false; lease[n]=false; infl[n]=0; ld[n]=false; susp[n]=true; dirty[n]=dirty[n] || al[n]; al[n]=false;
#if FENCING
  met[n]=false; if :: ASKED(n) -> fq[n]=4 :: else -> fq[n]=0 fi
#endif
}
/* n changes the ledger, with a quorum: the other voter has the change, or there is none */
inline commit(n, p, i) { prim[n]=p; ins[n]=i; if :: !ALONE(n) -> prim[OTHER(n)]=p; ins[OTHER(n)]=i :: else fi }
/* n leaves the group of two: the only voter of the next incarnation. One that was not back in a group has nobody it left without a majority */
inline leave(n) { line[n]=(line[n] & (BIT(2*inc[n])-1)) | ((n+1)<<(2*inc[n])); inc[n]++;
  if :: join[n] && LOOSE -> loose[n]=loose[n] | BIT(inc[n]) :: else -> loose[n]=loose[n] & (BIT(inc[n])-1) fi; vot[n]=BIT(n); join[n]=false
}
inline giveUpLedger(n, m) {
  if :: role[n] -> abort(n) :: else -> drop() fi;
  inc[n]=inc[m]; line[n]=line[m]; loose[n]=loose[m]; vot[n]=0; join[n]=true;
  if :: OLDSTATE -> skip :: else -> prim[n]=NONE; ins[n]=0 fi
}
inline pen() { assert(!(SERVES(0) && SERVES(1)) || excuse) }
/* o's copy is about to be replaced by n's: nothing that was answered is lost by it unless an operator said so */
inline replaces(n, o) { assert(disk[o]==NEW || ((acked & CONT(o)) & ~CONT(n))==0) }

#if FENCING
/* the two are in contact: what was asked of a device before says nothing about now */
inline void(n) { if :: STALEFENCE -> skip :: fq[n]==1 && !STALEFENCE -> fq[n]=4 :: fq[n]>1 && fq[n]<4 && !STALEFENCE -> fq[n]=0 :: else fi }
inline contact() { if :: RE && SG -> met[0]=true; met[1]=true; void(0); void(1) :: else fi }
#else
inline contact() { skip }
#endif

inline authority(n, o) {
  if
  :: atomic { up[n] && crashes < MAXC -> crash(n); crashes++ }
  :: atomic { !up[n] -> up[n]=true; BORN(n); contact() }
  /* lease: renewed with a quorum, lost without one */
  :: atomic { role[n] && !lease[n] && Q(n) && prim[n]==n -> lease[n]=true; pen() }
  :: atomic { lease[n] && !Q(n) -> lease[n]=false }
  :: atomic { role[n] && prim[n]!=n && Q(n) -> abort(n) }
  /* promotion without force: never of a Secondary whose Primary is gone */
  :: atomic { !role[n] && Q(n) && disk[n]<INC && (ins[n] & BIT(n)) && !(lease[o] && !ALONE(n)) && !(role[o] && conn) && (!syncing || src==n) &&
       (prim[n]==n || prim[n]==NONE || (conn && !role[o])) && (!susp[n] || !(RE && (ins[n] & BIT(o)) && !susp[o])) ->
       assert(excuse || (owed & ~CONT(n))==0);
       commit(n, n, ins[n]); role[n]=true; lease[n]=true; susp[n]=false; disk[n]=UTD; if :: conn && !syncing -> skip :: else -> drop() fi; pen() }
  :: atomic { role[n] && lease[n] && infl[n]==0 && Q(n) && prim[n]==n && !ASKED(n) && !((dirty[n] || bm[n]!=0) && (ins[n] & BIT(o))) -> role[n]=false; lease[n]=false; commit(n, NONE, ins[n]) }
  /* the Primary whose peer is gone leaves it behind, and says so by its incarnation */
  :: atomic { !FENCING && up[n] && !join[n] && vot[n]==3 && (ins[n] & BIT(n)) && !RE && inc[n]<MAXI && ((role[n] && prim[n]==n) || SELFALONE) ->
       leave(n); if :: role[n] -> skip :: else -> prim[n]=n fi }
  /* the one of the lower incarnation gives its ledger up, and is a voter again with the other's */
  :: atomic { RE && !ANYINC && !join[n] && !join[o] && BELOW(n,o) -> assert(!(ALONE(n) && SERVES(n))); giveUpLedger(n, o) }
  :: atomic { RE && join[n] && !join[o] && ALONE(o) && inc[n]==inc[o] && line[n]==line[o] ->
       if :: OLDSTATE -> prim[o]=prim[n]; ins[o]=ins[n] :: else -> prim[n]=prim[o]; ins[n]=ins[o] fi; join[n]=false; vot[n]=3; vot[o]=3; contact() }
  /* the operator: leaves the other behind, and promotes what is here, whatever it is. A promise to the other has run out before */
  :: atomic { up[n] && !role[n] && forces<MAXF && nextg<MAXG && (vot[n]==3 || join[n]) && !RE && inc[n]<MAXI && !(lease[o] && vot[o]==3) ->
       forces++; if :: (up[o] && (role[o] || FENCING)) || ALONE(o) -> excuse=true :: else fi; leave(n); forced(n, o) }
  :: atomic { up[n] && !role[n] && forces<MAXF && nextg<MAXG && Q(n) && !(role[o] && conn) && !(lease[o] && !ALONE(n)) && !(syncing && src==o) ->
       forces++; if :: ALONE(n) && ((up[o] && role[o]) || ALONE(o)) -> excuse=true :: else fi; forced(n, o) }
  /* the operator, told of a split brain: gives this side up */
  :: atomic { RE && !role[n] && given<MAXF && (APART || (!APART && !join[0] && !join[1] && inc[0]==inc[1] && APARTGEN)) && (APART || Q(n)) && !(ins[n]==BIT(n) && !APART) ->
       given++; acked=acked & ~(CONT(n) & ~CONT(o)); owed=owed & CONT(o); drop(); disk[n]=NEW; cur[n]=FRESH; bm[n]=0; hist[n]=0; dirty[n]=true;
       if :: APART && !join[o] -> giveUpLedger(n, o) :: else fi }
  fi
}

/* the ledger takes n for the only current copy; one that is not begins a generation of its own */
inline forced(n, o) {
  if :: conn -> drop() :: else fi;
  commit(n, n, BIT(n)); role[n]=true; lease[n]=true; susp[n]=false; owed=owed & CONT(n);
  if :: disk[n]==UTD -> skip
     :: disk[n]==OUT -> mint(n); disk[n]=UTD
     :: disk[n]>OUT ->
        /* if it is part old, part new: what it shows from now on is promised like a write */
        if :: mixed[n] -> anc[nextv+1]=CONT(n) & CONT(o); nextv++; vol[n]=nextv; acked=acked | BIT(nextv); owed=owed | BIT(nextv); mixed[n]=false :: else fi;
        if :: FORCESAME -> skip :: else -> mint(n) fi; disk[n]=UTD
  fi;
  pen()
}

#if FENCING
inline fence(n, o) {
  if
  /* who has lost its peer has it fenced: the Primary at once, the Secondary when the Primary, if it lives, has been decided on */
  :: atomic { up[n] && fq[n]==0 && vot[n]==3 && !join[n] && !RE && (ins[n] & BIT(n)) && disk[n]<INC && (met[n] || BOOTFENCE) && inc[n]<MAXI &&
       ((role[n] && prim[n]==n) || (!role[n] && prim[n]==o && (NODELAY || !(up[o] && role[o]) || fq[o]==3))) -> fq[n]=1 }
  /* the device may be slow, refuse, or not say what it did; whoever asked may be gone by then */
  :: atomic { ASKED(n) -> if :: up[o] -> crash(o); felled[o]=true :: up[o] -> botched=true :: !up[o] -> skip fi;
       if :: !up[n] || fq[n]==4 -> fq[n]=0 :: up[n] && fq[n]==1 && !up[o] -> fq[n]=2 :: up[n] && fq[n]==1 -> fq[n]=3; botched=true fi;
       assert(!(felled[0] && felled[1]) || botched || crashes>0 || forces>0) }
  :: atomic { fq[n]==3 && !NODELAY -> fq[n]=0 }
  /* the operator says that the other one is off, and it is */
  :: atomic { up[n] && !up[o] && (fq[n]==0 || fq[n]==3) && vot[n]==3 && !join[n] && (met[n] || BOOTFENCE) && inc[n]<MAXI -> fq[n]=2 }
  /* confirmed: the survivor goes on alone, and nobody else holds anything */
  :: atomic { up[n] && vot[n]==3 && !join[n] && !RE && inc[n]<MAXI && (fq[n]==2 || (UNKNOWNOK && fq[n]==3) || (NOFENCE && !role[n] && prim[n]==o)) ->
       leave(n); fq[n]=0; if :: prim[n]==n -> skip :: else -> prim[n]=NONE fi }
  fi
}
#endif

inline data(n, o) {
  if
  /* two copies meet; the ledger says who is current, the generations which of them came from which */
  :: atomic { !conn && RE && (ANYINC || inc[0]==inc[1]) && !join[n] && infl[0]==0 && infl[1]==0 && !(role[0] && role[1]) && !role[o] && (ins[n] & BIT(n)) && CURRENT(n) && Q(n) && prim[n]!=o &&
       ((!(ins[n] & BIT(o)) && (SAMEGEN || BITMAP(n,o) || FULL(n,o))) ||
           ((ins[n] & BIT(o)) && (BITMAP(n,o) || FULL(n,o) || (SAMEGEN && (!CURRENT(o) || ((dirty[0] || dirty[1]) && (role[n] || !susp[n] || susp[o]))))))) &&
       nextg<MAXG ->
       replaces(n, o);
       commit(n, prim[n], BIT(n)); conn=true; syncing=true; src=n; dirty[n]=dirty[n] || dirty[o];
       if :: FULL(n,o) || disk[o]==NEW -> dirty[n]=true; rebase(n) :: else -> if :: bm[n]==0 -> mint(n) :: else fi fi;
       begin(o, n); disk[o]=INC; mixed[o]=mixed[o] || dirty[n]; susp[n]=susp[n] && !role[n] }
  :: atomic { !conn && RE && (ANYINC || inc[0]==inc[1]) && !join[n] && infl[0]==0 && infl[1]==0 && !(role[0] && role[1]) && ins[n]==3 && Q(n) && SAMEGEN && disk[0]<INC && disk[1]<INC && !dirty[0] && !dirty[1] ->
       assert(vol[0]==vol[1]); /* copies of one generation never differ without a mark */
       conn=true; susp[0]=false; susp[1]=false; inLine(0); inLine(1); disk[0]=UTD; disk[1]=UTD }
  /* a resync ends: the source is called as the target is, then the target is current, then the ledger counts it */
  :: atomic { conn && syncing && src==n && !told && infl[n]==0 -> if :: dirty[n] -> vol[o]=vol[n] :: else fi; assert(vol[0]==vol[1]); dirty[n]=false; mixed[o]=false; finish(n); told=true }
  :: atomic { conn && syncing && src==n && told && !adopted -> adopt(o, n); disk[o]=UTD; susp[o]=false; dirty[o]=false; adopted=true }
  :: atomic { conn && syncing && src==n && adopted && Q(n) && ins[n]==BIT(n) -> commit(n, prim[n], 3); syncing=false; told=false; adopted=false; src=0; susp[n]=false }
  /* write */
  :: atomic { SERVES(n) && disk[n]==UTD && infl[n]==0 && nextv<MAXW+forces -> nextv++; infl[n]=nextv; anc[nextv]=CONT(n); al[n]=true; ld[n]=false; pd[n]=false }
  :: atomic { role[n] && infl[n]!=0 && !ld[n] -> vol[n]=infl[n]; ld[n]=true }
  :: atomic { role[n] && infl[n]!=0 && conn && !pd[n] -> pd[n]=true; if :: syncing && !told -> dirty[n]=true :: else -> vol[o]=infl[n] fi }
  :: atomic { SERVES(n) && infl[n]!=0 && ld[n] && conn && pd[n] -> acked=acked | BIT(infl[n]); owed=owed | BIT(infl[n]); infl[n]=0; ld[n]=false; pd[n]=false; al[n]=false }
  :: atomic { SERVES(n) && !conn && Q(n) && (ins[n] & BIT(o)) -> commit(n, n, BIT(n)) }
  :: atomic { SERVES(n) && infl[n]!=0 && ld[n] && !conn && ins[n]==BIT(n) && nextg<MAXG ->
       if :: bm[n]==0 && !ALONESAME -> mint(n) :: else fi;
       acked=acked | BIT(infl[n]); owed=owed | BIT(infl[n]); infl[n]=0; ld[n]=false; dirty[n]=true; al[n]=false }
  /* a copy that the ledger does not count is Outdated; one that it counts again is not */
  :: atomic { !role[n] && !join[n] && ins[n]!=0 && disk[n]==UTD && !(ins[n] & BIT(n)) && !syncing -> disk[n]=OUT }
  :: atomic { !role[n] && disk[n]==OUT && (ins[n] & BIT(n)) -> disk[n]=UTD }
  fi
}

init {
  atomic { up[0]=true; up[1]=true; lab=true; inc[0]=1; inc[1]=1; vot[0]=3; vot[1]=3; prim[0]=NONE; prim[1]=NONE; ins[0]=3; ins[1]=3; conn=true; cur[0]=2; cur[1]=2; nextg=2; acked=1; owed=1; MET }
  do
  :: authority(0, 1)
  :: authority(1, 0)
  :: data(0, 1)
  :: data(1, 0)
#if FENCING
  :: fence(0, 1)
  :: fence(1, 0)
#endif
  :: atomic { lab -> lab=false; drop() }
  :: atomic { !lab -> lab=true; contact() }
  od
}
