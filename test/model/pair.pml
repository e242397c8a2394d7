/* Authority and replication rules of a mirrored pair with a witness, one block, one writer at a time.
 * Raft is abstracted as one atomic record that a node may change only while it reaches a quorum.
 * Mutants (-DM1 .. -DM10) each drop one rule; every mutant must violate an assertion, the plain model none.
 * A copy that did not crash knows exactly what its peer may lack: its dirty blocks, the unflushed answered writes, and what was
 * in flight when it lost authority. Its activity log adds to a resync only after a crash (al && susp), on both sides (rule R3).
 * A Primary may demote itself without a connection or during a resync: its own copy stays the current one.
 * A Primary whose disk fails gives its copy up and goes on through its peer (rule R13): out of the set first, then the peer marks
 * everything and is the keeper (thru), then it may be answered. A disk that has failed works again after a restart, with what it had.
 * Disks fail only with -DDISK=1, and then one crash less is played: with three of them the states are too many.
 * So that the set alone does not say that a peer can be gone on with, a Secondary's copy may then also be given up by an operator, or get
 * another disk, while the ledger still counts it.
 * -DM11 is no mutant: leaving an unconnected peer in the in-sync set at promotion is safe as well (rule R10). */

/* the rules, each with the mutant that drops it */
#ifdef M1
#define LAPSE 0            /* an isolated primary keeps its lease */
#define EXPIRED(o) (!lease[o] || !QUORUM(o))
#else
#define LAPSE 1
#ifdef M2
#define EXPIRED(o) 1       /* promotion does not wait for the other's lease */
#else
#define EXPIRED(o) (!lease[o])
#endif
#endif
#ifdef M3
#define TRUSTBOTH 1        /* reconnect without looking at the activity logs */
#else
#define TRUSTBOTH 0
#endif
#ifdef M4
#define FLUSHTARGET 0      /* resync clears the bits before the target is flushed */
#else
#define FLUSHTARGET 1
#endif
#ifdef M5
#define ACKALONE 1         /* ack a one-sided write without excluding the peer first */
#else
#define ACKALONE 0
#endif
#ifdef M6
#define MARKUNFLUSHED 0    /* forget writes the lost peer acked but never flushed */
#else
#define MARKUNFLUSHED 1
#endif
#ifdef M7
#define COLDEARLY 1        /* an extent leaves the activity log before it is durable on both */
#else
#define COLDEARLY 0
#endif

#ifdef M8
#define FORGETCRASH 1      /* a crashed node promotes itself beside a healthy in-sync peer */
#else
#define FORGETCRASH 0
#endif
/* a copy that lost its cache and is the only one in reach may lose what was never flushed, nothing more */
#define LOSTCACHE(n,o) if :: susp[n] && vol[n]<acked && !(up[o] && lab && (insync & BIT(o)) && !susp[o]) -> assert(vol[n]>=flushed); acked=vol[n] :: else fi

#ifdef M9
#define WRONGSOURCE 1      /* a crashed node may be the source for a healthy in-sync peer */
#else
#define WRONGSOURCE 0
#endif

#ifdef M10
#define KEEPTARGET 1       /* a resync target stays in the in-sync set */
#else
#define KEEPTARGET 0
#endif
#ifdef M11
#define KEEPPEER 1         /* a promotion without a connected peer leaves it in the set */
#else
#define KEEPPEER 0
#endif

#ifdef M12
#define STAYINSET 1        /* a Primary without its disk answers while its copy still counts */
#else
#define STAYINSET 0
#endif
#ifdef M13
#define KEEPUNMARKED 1     /* the keeper does not mark what the copy given up lacks */
#else
#define KEEPUNMARKED 0
#endif
#ifdef M14
#define INLINE(o) (insync & BIT(o)) /* to be in the set is enough for a Primary to give its copy up */
#else
#define INLINE(o) (conn && !syncing && insync==3)
#endif

#define THRU (thru || (STAYINSET && conn))
#define OTHER(n) (1-(n))
#define BIT(n)   (1<<(n))
#define MAXV 3
#ifdef DISK
#define MAXC 2   /* crashes, and failures of a disk */
#else
#define DISK 0   /* no disk fails */
#define MAXC 3   /* crashes */
#endif

bool up[2]; bool role[2]; bool lease[2];
bool wup; bool lab; bool law[2];        /* witness up; link A-B; link n-witness */
byte prim; byte insync;       /* the raft record */
bool conn; bool syncing; byte src;      /* mirror connection; resync running from src */
byte vol[2]; byte dur[2];               /* block version in cache / on stable media */
bool al[2];                             /* activity log bit, persistent */
bool dirty[2]; bool pdirty[2];          /* bitmap bit in memory / persisted */
bool dead[2]; bool thru;                /* disk has failed; the Primary's requests go to the peer alone */
bool bad[2];                            /* emptied by an operator; the ledger does not know yet */
bool susp[2];                           /* came back from a crash and not yet brought in line */
bool unfl[2];                           /* primary memory: peer acked writes not yet flushed there */
byte next; byte infl[2]; bool ld[2]; bool pd[2]; /* version counter; in-flight write: local done, peer done */
byte acked; byte flushed; byte crashes;

#define QUORUM(n) (up[n] && ((lab && up[OTHER(n)]) || (law[n] && wup)))

inline check(n) { /* n may serve I/O now */
  assert(!(role[0] && lease[0] && role[1] && lease[1]));
  assert(dead[n] || vol[n] >= acked)
}

inline crash(n) {
  up[n]=false; lease[n]=false; conn=false; thru=false; syncing=false; dirty[n]=false; unfl[n]=false;
  if :: role[n] -> infl[n]=0; ld[n]=false; pd[n]=false :: else fi;
  role[n]=false;
  if :: vol[n]=dur[n] :: dur[n]=vol[n] fi;   /* power loss, or the cache survived */
  susp[n]=true;
  if :: insync==BIT(n) && vol[n]<acked -> assert(vol[n]>=flushed); acked=vol[n] :: else fi; /* the only copy lost its cache */
  crashes++
}

inline step(n, o) {
  if
  :: atomic { up[n] && crashes < MAXC -> crash(n) }
  :: atomic { !up[n] -> up[n]=true; dead[n]=false; dirty[n] = pdirty[n] || al[n] }
  /* lease: renewed with a quorum, lost without one (time passes before anyone else may promote) */
  :: atomic { role[n] && !lease[n] && QUORUM(n) && prim==n -> lease[n]=true; check(n) }
  :: atomic { LAPSE && lease[n] && !QUORUM(n) -> lease[n]=false }
  :: atomic { role[n] && prim!=n && QUORUM(n) -> if :: infl[n]!=0 || unfl[n] -> dirty[n]=true :: else fi; unfl[n]=false; role[n]=false; lease[n]=false; infl[n]=0; ld[n]=false; pd[n]=false; if :: dead[n] || thru -> thru=false; conn=false :: else fi }
:: atomic { !role[n] && !dead[n] && !bad[n] && QUORUM(n) && (insync & BIT(n)) && EXPIRED(o) && !(role[o] && conn) && (!syncing || src==n) && (FORGETCRASH || !susp[n] || !(up[o] && lab && (insync & BIT(o)) && !susp[o])) -> LOSTCACHE(n,o); susp[n]=false; if :: conn && !syncing -> skip :: else -> insync = (KEEPPEER -> insync : BIT(n)) fi; prim=n; role[n]=true; lease[n]=true; dirty[n] = dirty[n] || al[n]; check(n) }
  :: atomic { role[n] && infl[n]==0 && (!dead[n] || thru) -> if :: thru -> dur[o]=vol[o]; unfl[n]=false; flushed=acked; thru=false; conn=false :: else fi; role[n]=false; lease[n]=false; prim=2 } /* clean demote */
  /* the Primary's disk fails; what it had in its cache may be lost. Then: out of the set, a keeper, writes through it */
  :: atomic { DISK && role[n] && !dead[n] && INLINE(o) && crashes < MAXC -> dead[n]=true; if :: vol[n]=dur[n] :: dur[n]=vol[n] :: skip fi; crashes++ }
  :: atomic { DISK && up[n] && !role[n] && !bad[n] && !dead[n] && !dead[o] && insync==3 && !syncing && crashes < MAXC ->
       bad[n]=true; susp[n]=true; vol[n]=0; dur[n]=0; al[n]=false; dirty[n]=false; pdirty[n]=false; conn=false; crashes++ }
  :: atomic { role[n] && lease[n] && dead[n] && QUORUM(n) && insync==3 -> insync=BIT(o); conn=false; pd[n]=false; assert(vol[o] >= flushed) }
  :: atomic { role[n] && dead[n] && !conn && up[o] && lab && insync==BIT(o) && !role[o] && prim==n && !bad[o] && !(susp[o] && unfl[n]) -> if :: susp[o] && vol[o]<acked -> assert(vol[o]>=flushed); acked=vol[o] :: else fi; /* disk and cache: two failures */ conn=true; thru=true; pd[n]=false; if :: KEEPUNMARKED -> skip :: else -> dirty[o]=true; pdirty[o]=true fi }
  :: atomic { role[n] && lease[n] && dead[n] && THRU && infl[n]==0 && next < MAXV -> assert(vol[o] >= acked); next++; infl[n]=next; pd[n]=false }
  :: atomic { role[n] && lease[n] && dead[n] && infl[n]!=0 && pd[n] && conn && THRU -> acked=infl[n]; infl[n]=0; ld[n]=false; pd[n]=false; assert(vol[o] >= acked) }
  :: atomic { role[n] && lease[n] && dead[n] && THRU && infl[n]==0 -> dur[o]=vol[o]; unfl[n]=false; flushed=acked }
  /* mirror connection and resync: the record says who is current, the logs say which blocks */
  :: atomic { conn==false && !dead[n] && !dead[o] && !bad[n] && up[n] && up[o] && lab && QUORUM(n) && (insync & BIT(n)) && !role[o] && (role[n] || prim==2 || prim==n || insync==BIT(n)) && infl[n]==0 && (WRONGSOURCE || !susp[n] || susp[o] || insync==BIT(n)) ->
       conn=true; if :: susp[n] && susp[o] && vol[n]<acked -> assert(vol[n]>=flushed); acked=vol[n] :: else fi;
       if
       :: TRUSTBOTH && insync==3 -> skip
       :: dirty[n] || (al[n] && susp[n]) || (MARKUNFLUSHED && unfl[n]) || dirty[o] || (al[o] && susp[o]) || (MARKUNFLUSHED && unfl[o]) || pdirty[n] || pdirty[o] || bad[o] || insync!=3 -> syncing=true; src=n; insync = (KEEPTARGET -> insync : BIT(n)); dirty[n] = dirty[n] || (al[n] && susp[n]) || (MARKUNFLUSHED && unfl[n]) || dirty[o] || (al[o] && susp[o]) || (MARKUNFLUSHED && unfl[o]) || pdirty[n] || pdirty[o] || bad[o]
       :: else -> skip
       fi }
  :: atomic { conn && syncing && src==n && infl[n]==0 && QUORUM(n) ->
       if :: dirty[n] || pdirty[n] -> vol[o]=vol[n];
             if :: FLUSHTARGET -> dur[o]=vol[o]; dur[n]=vol[n] :: else fi
          :: else fi;
       insync=3; syncing=false; susp[o]=false; bad[o]=false; dirty[n]=false; dirty[o]=false; pdirty[n]=false; pdirty[o]=false; if :: role[n] -> skip :: else -> al[n]=false fi; al[o]=false; unfl[n]=false }
  /* write: activity log first, then both copies in any order */
  :: atomic { role[n] && lease[n] && !dead[n] && infl[n]==0 && next < MAXV -> check(n); al[n]=true; next++; infl[n]=next; ld[n]=false; pd[n]=false }
  :: atomic { role[n] && infl[n]!=0 && !ld[n] && !dead[n] -> vol[n]=infl[n]; ld[n]=true }
  :: atomic { role[n] && infl[n]!=0 && conn && !pd[n] -> vol[o]=infl[n]; pd[n]=true; unfl[n]=true }
  :: atomic { role[n] && lease[n] && !dead[n] && infl[n]!=0 && ld[n] && ((pd[n] && conn) || insync==BIT(n) || (ACKALONE && !conn)) -> acked=infl[n]; infl[n]=0; ld[n]=false; pd[n]=false;
            if :: !conn || syncing -> dirty[n]=true :: else fi; check(n) }
  /* losing the mirror: exclude the peer through the quorum before acking alone */
  :: atomic { role[n] && lease[n] && !dead[n] && !conn && QUORUM(n) && (insync & BIT(o)) ->
       insync=BIT(n);
       if :: infl[n]!=0 || (MARKUNFLUSHED && unfl[n]) -> dirty[n]=true :: else fi; unfl[n]=false }
  /* flush on every in-sync copy */
  :: atomic { role[n] && lease[n] && !dead[n] && infl[n]==0 && (conn || insync==BIT(n)) ->
       dur[n]=vol[n]; if :: conn -> dur[o]=vol[o]; unfl[n]=false :: else fi; flushed=acked }
  /* the extent goes cold: only when durable everywhere; the bitmap bit is persisted first */
  :: atomic { role[n] && al[n] && !dead[n] && infl[n]==0 && (COLDEARLY || (!unfl[n] && dur[n]==vol[n])) -> pdirty[n]=pdirty[n]||dirty[n]; al[n]=false }
  /* quiescent in-sync copies with no log are identical */
  :: atomic { conn && !syncing && infl[n]==0 && insync==3 && up[n] && up[o] && !dirty[n] && !dirty[o] && !al[n] && !al[o] -> assert(vol[n]==vol[o]) }
  fi
}

inline links() {
  if
  :: atomic { lab -> lab=false; conn=false; thru=false; syncing=false }
  :: atomic { !lab -> lab=true }
  :: atomic { law[0] -> law[0]=false } :: atomic { !law[0] -> law[0]=true }
  :: atomic { law[1] -> law[1]=false } :: atomic { !law[1] -> law[1]=true }
  :: atomic { wup -> wup=false } :: atomic { !wup -> wup=true }
  fi
}

init {
  atomic { up[0]=true; up[1]=true; wup=true; lab=true; law[0]=true; law[1]=true; prim=2; insync=3; conn=true }
  do
  :: step(0, 1)
  :: step(1, 0)
  :: links()
  od
}
