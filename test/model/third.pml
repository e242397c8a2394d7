/* The last of three voters, promoted by force: an operator says that the other two are gone for good. Ledgers only; the data are alone.pml's.
 * The two may be alive: what they decide meanwhile nobody discards. The incarnation that is
 * founded keeps from which entry it left (fx). A group that has an entry beyond it is split from it, one that has none gives way.
 * gid is what a group really is; the code goes by incarnation and founder. A log is the number of its last entry, which one group's nodes can only
 * have in common. A node that gives its ledger up for a group that lists it still is a voter there at once, with nothing. */

#ifdef M27
#define FORK 0          /* a forced incarnation supersedes whatever the others decided */
#else
#define FORK 1
#endif
#define BIT(n) (1<<(n))
#ifndef MAXI
#define MAXI 3          /* the highest incarnation */
#endif
#ifndef MAXX
#define MAXX 3          /* entries of a log */
#endif
#ifndef MAXG
#define MAXG 1          /* ledgers given up by an operator */
#endif
#ifndef MAXF
#define MAXF 2          /* promotions by force */
#endif
bool lnk[3];            /* 0: 0-1, 1: 0-2, 2: 1-2 */
byte inc[3]; byte line[3]; byte vot[3]; bool join[3]; byte idx[3]; byte fx[12]; /* fx[4*n+i]: from which entry incarnation i left, by n's lineage */
byte gid[3]; byte ngid; byte cidx[8]; /* the last entry that a group has committed */
byte ap[3];             /* of which group the data nodes were when the witness met them split from its own */
byte forces; byte given;
#define L(a,b) lnk[(a)+(b)-1]
#define FO(n,i) ((line[n]>>(2*((i)-1))) & 3)
#define SG(a,b) (!join[a] && !join[b] && inc[a]==inc[b] && FO(a,inc[a])==FO(b,inc[b]))
#define IN(a,b) (L(a,b) && SG(a,b))
#define MEM(n,m) (((vot[n]>>(m))&1) && IN(n,m))
#define Q(n,a,b) (!join[n] && (vot[n]==BIT(n) || (vot[n]==7 && (MEM(n,a) || MEM(n,b)))))
#define WENT(lo,hi) (FORK && idx[lo] > fx[4*(hi)+inc[lo]+1])
#define BELOW(lo,hi) (inc[lo]<inc[hi] && FO(hi,inc[lo])==FO(lo,inc[lo]) && !WENT(lo,hi))
#define SPLIT(a,b) (!join[a] && !join[b] && (inc[a]==inc[b] -> FO(a,inc[a])!=FO(b,inc[b]) : (inc[a]<inc[b] -> !BELOW(a,b) : !BELOW(b,a))))
inline take(n, m) { inc[n]=inc[m]; line[n]=line[m]; fx[4*n+2]=fx[4*m+2]; fx[4*n+3]=fx[4*m+3]; gid[n]=gid[m] }
inline discard(n, m) { take(n, m); join[n]=true; idx[n]=0; vot[n]=0 }
inline pair(n, m) {
  if
  :: atomic { IN(n,m) && (gid[n]!=gid[m] || idx[n]!=idx[m]) -> assert(gid[n]==gid[m]); if :: idx[n]<idx[m] -> idx[n]=idx[m]; vot[n]=vot[m] :: idx[m]<idx[n] -> idx[m]=idx[n]; vot[m]=vot[n] fi }
  :: atomic { L(n,m) && !join[n] && !join[m] && BELOW(n,m) -> assert(cidx[gid[n]] <= fx[4*m+inc[n]+1] || idx[n] < cidx[gid[n]]); discard(n, m) }
  /* an operator ends a split brain on this node */
  :: atomic { L(n,m) && n<2 && given<MAXG && SPLIT(n,m) -> given++; discard(n, m) }
  /* a witness that both data nodes have left goes after them */
  :: atomic { L(n,m) && n==2 && SPLIT(2,m) && (ap[m]!=inc[m]*4+FO(m,inc[m])) -> ap[m]=inc[m]*4+FO(m,inc[m]); if :: ap[0]==ap[1] -> discard(2, m); ap[0]=0; ap[1]=0 :: else fi }
  fi
}
inline own(n, a, b) {
  if
  :: atomic { Q(n,a,b) && idx[n]<MAXX && !(MEM(n,a) && idx[a]>idx[n]) && !(MEM(n,b) && idx[b]>idx[n]) -> 
       assert(idx[n]>=cidx[gid[n]]);   /* who decides knows all that was decided */
       idx[n]++; if :: MEM(n,a) -> idx[a]=idx[n]; vot[a]=vot[n] :: else fi; if :: MEM(n,b) -> idx[b]=idx[n]; vot[b]=vot[n] :: else fi; cidx[gid[n]]=idx[n] }
  /* by force */
  :: atomic { n<2 && forces<MAXF && !Q(n,a,b) && inc[n]<MAXI && ngid<6 -> forces++;
       line[n]=(line[n] & (BIT(2*inc[n])-1)) | ((n+1)<<(2*inc[n])); inc[n]++; fx[4*n+inc[n]]=idx[n]; vot[n]=BIT(n); join[n]=false; ngid++; gid[n]=ngid; cidx[ngid]=idx[n] }
  /* those that return are voters again both or neither */
  :: atomic { vot[n]==BIT(n) && !join[n] && L(n,a) && L(n,b) && join[a] && join[b] && gid[a]==gid[n] && gid[b]==gid[n] && idx[n]<MAXX ->
       idx[n]++; vot[n]=7; join[a]=false; vot[a]=7; idx[a]=idx[n]; join[b]=false; vot[b]=7; idx[b]=idx[n]; cidx[gid[n]]=idx[n] }
  /* it surrendered to a group that still lists it: it is a voter at once */
  :: atomic { join[n] && L(n,a) && !join[a] && vot[a]==7 && inc[a]==inc[n] && line[a]==line[n] -> join[n]=false; vot[n]=7 }
  :: atomic { join[n] && L(n,b) && !join[b] && vot[b]==7 && inc[b]==inc[n] && line[b]==line[n] -> join[n]=false; vot[n]=7 }
  fi
}
init {
  atomic { inc[0]=1; inc[1]=1; inc[2]=1; vot[0]=7; vot[1]=7; vot[2]=7; lnk[0]=true; lnk[1]=true; lnk[2]=true }
  do
  :: own(0,1,2) :: own(1,0,2) :: own(2,0,1)
  :: pair(0,1) :: pair(1,0) :: pair(0,2) :: pair(2,0) :: pair(1,2) :: pair(2,1)
  :: atomic { lnk[0]=!lnk[0] } :: atomic { lnk[1]=!lnk[1] } :: atomic { lnk[2]=!lnk[2] }
  od
}
