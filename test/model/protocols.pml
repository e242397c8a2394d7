/* Protocols B and A (-DA): an answer before the peer's disk has the write. Two blocks that are written in turn, each locked
 * from the frame to the ack of the peer's disk; a session that breaks at any time; one crash, of the Primary's node or of the
 * Secondary's agent, with what that had in its memory. Authority, leases and the cache are in pair.pml: here the ledger is a bit.
 * B: whoever takes over has everything that was answered. A: it has everything up to an instant, and what it has acknowledged.
 * Mutants: -DD1 .. -DD5, each drops one rule. */

#ifdef D1
#define HEARD(b) 1          /* B answers before the peer has the write in its memory */
#else
#define HEARD(b) heard[b]
#endif
#ifdef D2
#define FREE(b) (infl[b]==0 || ans[b])   /* a range is free when its write is answered */
#else
#define FREE(b) (infl[b]==0)
#endif
#ifdef D3
#define DRAINED 1           /* a promotion does not wait for what is in the memory */
#else
#define DRAINED (mem[0]==0 && mem[1]==0 && late[0]==0 && late[1]==0)
#endif
#ifdef D4
#define MARKS 0             /* what was answered early is not in flight any more when the peer is lost */
#else
#define MARKS 1
#endif
#ifdef D5
#define EXCLUDED 1          /* going on alone needs no word of the ledger */
#else
#define EXCLUDED (!inset)
#endif

#define MAXV 7
#define B(v) ((v)&1)

bool pup, sup, inset, sess, taken, solo; /* nodes up; S in the in-sync set; a session; S is Primary; answered alone beside S in the set */
byte next, crashes;
byte p[2], s[2];            /* on the disks, by block */
byte mem[2], late[2];       /* in S's memory; late only where two overlap, which the lock prevents */
byte infl[2]; bool ld[2]; bool heard[2]; bool ans[2]; bool dirty[2]; bool al[2];
byte acked[2], sdone[2];    /* answered; acknowledged by S's disk */
chan to = [3] of { byte };
chan back = [6] of { byte, bool }; /* version; true: from memory */
byte v; bool m;

inline drop() { do :: len(to)>0 -> to?v :: len(back)>0 -> back?v,m :: else -> break od; v=0; m=false }
inline lost() { sess=false; drop();
  if :: infl[0]!=0 && (MARKS || !ans[0]) -> dirty[0]=true :: else fi; if :: infl[1]!=0 && (MARKS || !ans[1]) -> dirty[1]=true :: else fi }
inline begun(b) { next++; infl[b]=next; ld[b]=false; heard[b]=false; ans[b]=false; al[b]=true; if :: sess -> to!next :: else -> dirty[b]=true fi }
inline settle(b) { infl[b]=0; ld[b]=false; heard[b]=false; ans[b]=false }

inline primary(b) {
  if
  :: atomic { pup && !taken && next<MAXV && B(next+1)==b && FREE(b) && nfull(to) -> begun(b) }
  :: atomic { pup && infl[b]!=0 && !ld[b] -> p[b]=infl[b]; ld[b]=true }
#ifdef A
  :: atomic { pup && sess && infl[b]!=0 && ld[b] && !ans[b] -> acked[b]=infl[b]; ans[b]=true }
#else
  :: atomic { pup && sess && infl[b]!=0 && ld[b] && HEARD(b) && !ans[b] -> acked[b]=infl[b]; ans[b]=true }
#endif
  :: atomic { pup && !sess && EXCLUDED && infl[b]!=0 && ld[b] -> acked[b]=infl[b]; solo=solo||inset; settle(b) }
  :: atomic { sup && mem[b]!=0 && nfull(back) -> s[b]=mem[b]; if :: sess -> back!mem[b],false :: else fi; mem[b]=0 }
  :: atomic { sup && late[b]!=0 && nfull(back) -> s[b]=late[b]; if :: sess -> back!late[b],false :: else fi; late[b]=0 }
  fi
}

active proctype pair() {
  pup=true; sup=true; inset=true; sess=true;
end:
  do
  :: primary(0)
  :: primary(1)
  :: atomic { sess && sup && len(to)>0 && nfull(back) -> to?v; if :: mem[B(v)]==0 -> mem[B(v)]=v :: else -> late[B(v)]=v fi; back!v,true; v=0 }
  :: atomic { sess && pup && len(back)>0 -> back?v,m;
       if :: m && infl[B(v)]==v -> heard[B(v)]=true
          :: !m -> sdone[B(v)]=v; if :: infl[B(v)]==v && ld[B(v)] -> if :: !ans[B(v)] -> acked[B(v)]=v :: else fi; settle(B(v)); al[B(v)]=false :: infl[B(v)]==v && !ld[B(v)] -> p[B(v)]=v; acked[B(v)]=v; settle(B(v)); al[B(v)]=false :: else fi
          :: else fi; v=0; m=false }
  :: atomic { sess -> lost() }
  :: atomic { pup && !sess && inset && !taken -> inset=false }
  /* the two meet again: out of the set, then copied, then in */
  :: atomic { pup && sup && !sess && !taken && DRAINED && infl[0]==0 && infl[1]==0 ->
       if :: dirty[0] -> s[0]=p[0]; dirty[0]=false :: else fi; if :: dirty[1] -> s[1]=p[1]; dirty[1]=false :: else fi;
       assert(s[0]==p[0] && s[1]==p[1]); sdone[0]=s[0]; sdone[1]=s[1]; al[0]=false; al[1]=false; inset=true; sess=true; solo=false }
  :: atomic { pup && crashes<1 -> crashes++; pup=false; lost(); dirty[0]=false; dirty[1]=false; settle(0); settle(1) }
  :: atomic { sup && !taken && crashes<1 -> crashes++; sup=false; lost(); mem[0]=0; mem[1]=0; late[0]=0; late[1]=0 }
  :: atomic { !sup -> sup=true }
  :: atomic { !pup && sup && inset && !taken && DRAINED -> taken=true; assert(!solo);
#ifdef A
       assert(s[0]<=s[1]+1 && s[1]<=s[0]+1); assert(s[0]>=sdone[0] && s[1]>=sdone[1])
#else
       assert(s[0]>=acked[0] && s[1]>=acked[1])
#endif
     }
  /* the old Primary comes back: what its activity log says is copied over */
  :: atomic { taken && !pup && DRAINED -> pup=true; if :: al[0] -> p[0]=s[0] :: else fi; if :: al[1] -> p[1]=s[1] :: else fi; assert(p[0]==s[0] && p[1]==s[1]) }
  od
}
