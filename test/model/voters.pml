/* A witness comes to a pair of two voters, and goes, while the group runs: raft's membership, one at a time, with what going alone by itself takes.
 * Ledgers only. 0 and 1 have data, 2 is the witness. An entry of a log is one of a tree, by its number: parent, term, the group that is in force from it
 * on (raft's newest in the log, committed or not), and who is Primary. Messages are taken or not, at any time; a crash is a leader that is none any more.
 * Any one other voter and the leader are a majority, of two and of three. Going alone is for a Primary without a witness (R15); in its
 * group nobody is promoted in the place of another. lw: a lease that was counted with the promise of the witness. */

#ifdef M28
#define STRAIGHTIN 1    /* a third votes at once */
#else
#define STRAIGHTIN 0
#endif
#ifdef M29
#define HALFALONE 1     /* a third without a vote keeps nobody from going alone */
#else
#define HALFALONE 0
#endif
#ifdef M30
#define STRAIGHTOUT 1   /* a third is gone at once */
#else
#define STRAIGHTOUT 0
#endif
#ifdef M31
#define NOWAIT 1        /* leases that its promise was counted for may stand when it is gone */
#else
#define NOWAIT 0
#endif
#ifndef MAXE
#define MAXE 8          /* entries */
#endif
#ifndef MAXT
#define MAXT 4          /* terms */
#endif
#define AB  0
#define ABN 1           /* and a third without a vote */
#define ABW 2
#define NONE 2
byte par[MAXE]; byte et[MAXE]; byte grp[MAXE]; byte pri[MAXE]; byte dep[MAXE]; byte ne;
byte tip[3]; byte term[3]; bool ldr[3]; bool com[3]; /* com: the leader knows that its newest entry is committed */
byte nt; byte cid;      /* the newest term; the newest entry that is committed */
bool al[3]; bool lw[2]; bool ok;
byte x;
#define G(n) grp[tip[n]]
#define VOTES(m,g) ((m)<2 || (g)==ABW)
#define MEMBER(m,g) ((m)<2 || (g)!=AB)
#define UPTODATE(n,m) (et[tip[n]]>et[tip[m]] || (et[tip[n]]==et[tip[m]] && dep[tip[n]]>=dep[tip[m]]))
#define SETTLED(n) (ldr[n] && com[n] && et[tip[n]]==term[n] && ne<MAXE)
inline entry(n, g, p) { par[ne]=tip[n]; et[ne]=term[n]; dep[ne]=dep[tip[n]]+1; grp[ne]=g; pri[ne]=p; tip[n]=ne; ne++; com[n]=false }
/* what is committed is in the log of n */
inline has(n) { x=tip[n]; do :: x!=cid && x!=0 -> x=par[x] :: else -> break od; ok=(x==cid); x=0 }
inline commit(n, m) {
  if :: VOTES(m,G(n)) && et[tip[n]]==term[n] && !com[n] ->
    com[n]=true; assert(!al[0] && !al[1]); /* who went alone does so while the others decide */
    has(n); assert(ok); ok=false; cid=tip[n]
  :: else fi }
inline two(n, m) {
  if
  :: atomic { ldr[n] && !al[m] && MEMBER(m,G(n)) && term[m]<=term[n] && (tip[m]!=tip[n] || !com[n]) -> term[m]=term[n]; ldr[m]=false; tip[m]=tip[n]; commit(n, m) }
  :: atomic { !ldr[n] && !al[n] && !al[m] && nt<MAXT && ne<MAXE && VOTES(n,G(n)) && VOTES(m,G(n)) && UPTODATE(n,m) ->
       nt++; term[n]=nt; term[m]=nt; ldr[m]=false; ldr[n]=true; entry(n, G(n), pri[tip[n]]) }
  fi }
inline one(n) {
  if
  :: atomic { ldr[n] -> ldr[n]=false; com[n]=false }
  :: atomic { SETTLED(n) && G(n)==AB -> if :: STRAIGHTIN -> entry(n, ABW, pri[tip[n]]) :: !STRAIGHTIN -> entry(n, ABN, pri[tip[n]]) fi }
  :: atomic { SETTLED(n) && G(n)==ABN -> entry(n, ABW, pri[tip[n]]) }
  :: atomic { SETTLED(n) && G(n)==ABW -> if :: STRAIGHTOUT -> entry(n, AB, pri[tip[n]]) :: !STRAIGHTOUT -> entry(n, ABN, pri[tip[n]]) fi }
  :: atomic { SETTLED(n) && G(n)==ABN && (NOWAIT || (!lw[0] && !lw[1])) -> entry(n, AB, pri[tip[n]]) }
  :: atomic { ldr[n] && ne<MAXE && G(n)==ABW && pri[tip[n]]!=n -> entry(n, ABW, n) }
  :: atomic { ldr[n] && ne<MAXE && G(n)!=ABW && pri[tip[n]]==NONE -> entry(n, G(n), n) }
  :: atomic { ldr[n] && ne<MAXE && G(n)!=ABW && pri[tip[n]]!=NONE && com[n] -> entry(n, G(n), NONE) }
  /* a lease by the promise of the witness, which promises nobody whom it knows to be replaced; it runs out */
  :: atomic { G(n)==ABW && pri[tip[n]]==n && (dep[tip[2]]<=dep[tip[n]] || pri[tip[2]]==n) && !lw[1-n] -> lw[n]=true }
  :: atomic { lw[n] -> lw[n]=false }
  :: atomic { !al[0] && !al[1] && pri[tip[n]]==n && (G(n)==AB || (HALFALONE && G(n)==ABN)) ->
       has(n); assert(ok); ok=false; /* nothing was decided that it does not know */
       assert(!lw[1-n]); al[n]=true; ldr[n]=false }
  fi }
init {
  atomic { par[0]=0; ne=1; grp[0]=AB; pri[0]=0; et[0]=0 }
end:
  do
  :: one(0) :: one(1)
  :: two(0,1) :: two(0,2) :: two(1,0) :: two(1,2) :: two(2,0) :: two(2,1)
  od
}
