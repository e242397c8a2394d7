/* Tokens on disk that outlive the ledger they were counted by (R12). Two nodes with data; a witness is whoever else a commit takes. There may be several
 * ledgers: one that an operator's force founded goes on from what the forced node had, or from nothing where that was lost. Nobody compares tokens
 * of two ledgers; hi[] does, for the assertion: a copy takes no frame under a token lower than one of the same ledger that it has seen, in
 * whichever life, unless an operator has said that nobody goes by that ledger. Leases are pair.pml's: here a Primary that was replaced may go on sending.
 * Mutants (-DM32, -DM33) each drop one half of the rule; each must violate the assertion, the plain mode none. */

#define MAXL 3          /* ledgers */
#ifndef MAXT
#define MAXT 2          /* the highest token of a ledger */
#endif
#ifdef M32
#define OWNWORD 1       /* what its own ledger tells is enough to drop what the superblock brought */
#else
#define OWNWORD 0
#endif
#ifdef M33
#define FORGETS 1       /* the superblock keeps no token */
#else
#define FORGETS 0
#endif

#define NONE 2
#define MAX(a,b) ((a)>(b) -> (a) : (b))
#define HI(n,l)  hi[(n)*4+(l)]
#define HIGHEST(n) MAX(seen[n], before[n])

byte cnt[4]; byte prim[4]; byte ledgers; /* committed */
byte led[2]; byte lgc[2]; byte lgp[2];         /* by which ledger a node goes, and what its log has of it */
byte rec[2]; byte rp[2];                       /* what that has told in this life; 0: nothing */
byte seen[2]; byte before[2];                  /* in this life; brought by the superblock */
bool role[2]; byte ten[2]; bool wish[2];       /* wish: the operator's force is to be carried out */
byte hi[8];

inline sees(n, t) { seen[n]=MAX(seen[n], t) }
inline told(n) { rec[n]=cnt[led[n]]; rp[n]=prim[led[n]]; lgc[n]=rec[n]; lgp[n]=rp[n]; sees(n, rec[n]); HI(n,led[n])=MAX(HI(n,led[n]), rec[n]);
  if :: role[n] && rp[n]!=n -> role[n]=false :: else -> skip fi }
inline restart(n) { before[n]=(FORGETS -> 0 : HIGHEST(n)); seen[n]=0; rec[n]=0; rp[n]=NONE; role[n]=false; wish[n]=false }
/* n promotes itself by its ledger. Who leads has the entry in its log, and is told before anybody is answered */
inline promote(n, o) {
  cnt[led[n]]++; prim[led[n]]=n; rec[n]=cnt[led[n]]; rp[n]=n;
  if :: lgc[n]=rec[n]; lgp[n]=n; if :: led[o]==led[n] -> lgc[o]=rec[n]; lgp[o]=n :: skip fi
     :: led[o]==led[n] && !wish[n] -> told(o) fi;
  if :: rec[n]>=HIGHEST(n) -> skip
     :: wish[n] && rec[n]>=seen[n] && rec[n]<before[n] -> /* the operator's word, by what the present ledger has committed */
        before[n]=0; i=0; do :: i<MAXL -> if :: i!=led[n] -> HI(n,i)=0 :: else -> skip fi; i++ :: else -> break od; i=0
     :: else -> skip fi;
  if :: rec[n]>=HIGHEST(n) -> role[n]=true; ten[n]=rec[n]; sees(n, ten[n]); HI(n,led[n])=MAX(HI(n,led[n]), ten[n]) :: else -> skip fi;
  wish[n]=false
}
byte i;

inline node(n, o) {
  if
  :: atomic { rec[n]!=cnt[led[n]] || rp[n]!=prim[led[n]] -> told(n) }
  :: atomic { true -> restart(n) }
  :: atomic { !role[n] && (rec[n]==cnt[led[n]] || wish[n]) && cnt[led[n]]<MAXT -> promote(n, o) }
  :: atomic { role[n] -> role[n]=false } /* demoted; that is no tenure */
  /* the operator forces it out of its group, with its log or without */
  :: atomic { !role[n] && ledgers<MAXL ->
       if :: skip :: lgc[n]=0; lgp[n]=NONE; restart(n) fi;
       led[n]=ledgers; cnt[ledgers]=lgc[n]; prim[ledgers]=lgp[n]; ledgers++; wish[n]=true; told(n) }
  /* it gives its ledger up, and what it has seen with it, for one that has told the other what it holds: a copy that has parted is filled, and the ledger
   * is asked before that. Or it has lost it, and joins the other's */
  :: atomic { !role[n] && led[n]!=led[o] && rec[o]==cnt[led[o]] && rp[o]==prim[led[o]] -> if :: rec[n]!=0 -> seen[n]=0; before[n]=0 :: restart(n) fi;
       led[n]=led[o]; lgc[n]=0; lgp[n]=NONE; rec[n]=0; rp[n]=NONE; wish[n]=false }
  /* a handshake: both tell one record */
  :: atomic { !(role[n] && role[o]) && rec[n]!=0 && rec[n]<before[n] && (OWNWORD || (rec[n]==rec[o] && rp[n]==rp[o])) -> before[n]=0 }
  /* a frame */
  :: atomic { role[n] && !role[o] && ten[n]>=HIGHEST(o) -> assert(ten[n]>=HI(o,led[n])); sees(o, ten[n]); HI(o,led[n])=ten[n] }
  /* a resync between two Secondaries: the ledger is asked first */
  :: atomic { !role[n] && !role[o] && rec[n]!=0 && rec[n]==cnt[led[n]] && seen[n]>=HIGHEST(o) -> sees(o, seen[n]) }
  fi
}

init {
  atomic { ledgers=1; prim[0]=NONE; prim[1]=NONE; prim[2]=NONE; lgp[0]=NONE; lgp[1]=NONE; rp[0]=NONE; rp[1]=NONE }
  do :: node(0, 1) :: node(1, 0) od
}
