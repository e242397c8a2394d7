#!/usr/bin/env bash
# Plants one fault at a time into a copy of the engine and counts in how many
# of N seeds the simulator finds it.
#
#   test/sim/mutants.sh [N=200] [name...]
#   WORLD=TestScenarios test/sim/mutants.sh 2 [name...]    # in the scenarios instead
#
# Prints a line per mutant: name, seeds that failed of those run, the first
# seed and what it said. Fails when a mutant is never found, or when its
# pattern is no longer in the source.
set -euo pipefail
cd "$(dirname "$0")/../.."
seeds=${1:-200}
shift || true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/mirror" "$work/test"
cp go.mod go.sum "$work"
cp -r test/sim test/check test/script "$work/test"
for room in block state genid dirty actlog aftersplit wire engine; do cp -r "mirror/$room" "$work/mirror"; done
rm -f "$work"/mirror/*/*_test.go
mkdir "$work/stories"
cp mirror/engine/*_test.go "$work/stories"
cp -r "$work/mirror" "$work/mirror.sane"
cp -r "$work/test/sim" "$work/sim.sane"
missed=0
world=${WORLD:-TestSeeds}

# mutant name file old new [story]: replaces the first old by new in a file of the
# engine or, with a path, of the tree. A story is
# the test of package engine that must fail when no seed does: what takes too
# many coincidences for a few hundred seeds is held by a story.
mutant() {
	local name=$1 file=$2
	[[ $file == */* ]] || file=mirror/engine/$file
	[[ ${#only[@]} -eq 0 || " ${only[*]} " == *" $name "* ]] || return 0
	rm -rf "$work/mirror" "$work/test/sim"
	cp -r "$work/mirror.sane" "$work/mirror"
	cp -r "$work/sim.sane" "$work/test/sim"
	if ! OLD=$3 NEW=$4 perl -0777 -i -pe 'BEGIN { $o = $ENV{OLD}; $n = $ENV{NEW} } $hit += s/\Q$o\E/$n/; END { exit !$hit }' "$work/$file"; then
		echo "$name: not in $file any more: $3"
		missed=1
		return
	fi
	local out
	out=$(cd "$work" && HAPAIR_SIM_SEEDS=$seeds HAPAIR_SCENARIO_SEEDS=$seeds HAPAIR_SIM_COUNT=1 go test -count=1 -timeout 60m -run "^$world\$" -v ./test/sim 2>&1) || true
	local line
	line=$(grep -m1 -E 'MUTANT|\[build failed\]|^panic' <<<"$out" || true)
	line=${line#*MUTANT }
	if [[ $line == 0\ * && -n ${5:-} ]]; then
		cp "$work"/stories/*_test.go "$work/mirror/engine"
		if out=$(cd "$work" && go test -count=1 -run "^$5\$" ./mirror/engine 2>&1) || [[ $out == *'build failed'* ]]; then
			line="$line, and $5 misses it"
			missed=1
		else
			line="$line; held by $5"
		fi
	elif [[ $line != [1-9]* ]]; then
		missed=1
	fi
	echo "$name: ${line:-no result: $(tail -1 <<<"$out")}" | cut -c1-200
}
only=("$@")

# the rules of docs/safety.md, each dropped
mutant R1-lease-at-answer answer.go 'if !e.hasLease() {' 'if false {'
mutant R1-lease-looked-at-by-the-tick engine.go 'e.now < e.leaseTo' 'e.slow.ticks < e.leaseTo'
mutant R2-promotion-under-a-lease test/sim/govern.go 'w.now < w.leaseUntil:
		return "a lease still runs"' 'w.now < w.leaseUntil && false:
		return "a lease still runs"'
mutant R3-forget-activity-log engine.go 'e.suspect = true' 'e.suspect = true; v.al = actlog.New(v.al.Slots())'
mutant R3-trust-equal-sets judge.go 'dirtyBlocks(mine)+dirtyBlocks(theirs) == 0' 'true'
mutant R3-no-bitmap-of-target syncbegin.go '!v.bits.PageEmpty(t.page)' 'false'
mutant R4-clear-on-ack resync.go 'v.sync.acked = append(v.sync.acked, span{o.disk.Offset, o.disk.Length})' 'v.bits.Clear(o.disk.Offset, o.disk.Length); v.sync.acked = append(v.sync.acked, span{o.disk.Offset, o.disk.Length})'
mutant R4-source-not-flushed syncend.go 'if !e.flushedBoth() {' 'if false {' TestSourceIsDurableBeforeTheTwoAreInLine
mutant R5-no-exclusion write.go 'if e.peerInSync() {' 'if false {'
mutant R5-include-undecided engine.go 'return e.including || e.inSync(e.peer)' 'return e.inSync(e.peer)' TestNothingIsAnsweredAloneWhileAnInclusionIsUndecided
mutant R6-forget-unflushed session.go 'v.bits.Set(off, length) })' '_, _ = off, length })'
mutant R7-evict-unflushed write.go 'o.disk.Length, v.settled)' 'o.disk.Length, 0)'
mutant R7-evict-unsaved-bits activity.go 'return !v.bits.Unsaved(dirty.PageOfExtent(extent))' 'return true'
mutant R8-forget-crash super.go 'Clean: e.detaching && !e.suspect' 'Clean: e.detaching' TestSuspectCopyIsNotDetachedClean
mutant R8-never-suspect engine.go 'e.suspect = true' 'e.suspect = false'
mutant R9-crashed-source judge.go 'return theirs.Suspect, "the' 'return mine.Suspect, "the' TestRefusalsOfAHandshake
mutant R10-read-alone alike.go 'return !e.alike' 'return false' TestR10ReadAloneWaitsForTheExclusion
mutant R10-trust-an-inherited-session control.go 'e.alike = e.handedOver()' 'e.alike = e.session.repl == state.Established' TestR10ReadWaitsForTheFormerPrimary
mutant R10-read-what-failed-beside-a-dead-disk alike.go ' && !e.unshared(o)' '' TestReadOfAWriteThatFailed
mutant R11-keep-target-in-set hello.go 'e.wantExclude()' 'e.startSource()'
mutant R11-include-early syncend.go 'e.session.resync.told = true' 'e.session.resync.told, e.session.resync.include = true, true; e.ledgerNext()'
mutant R12-take-stale-frames peerwrite.go 'if m.Token < e.highest() {' 'if false {'

# other ways to get it wrong
mutant cold-write-goes-ahead write.go 'o.disk.Length) == actlog.Hot {' 'o.disk.Length) == actlog.Hot || true {'
mutant overlap-not-blocked conflict.go 'return true
		}
	}
	for p := last' 'return false
		}
	}
	for p := last'
mutant chunk-not-locked conflict.go 'if o.vol.blocks(o) {' 'if o.kind != opResync && o.vol.blocks(o) {'
mutant discard-is-lost peerwrite.go 'op = block.Discard' 'op = block.Flush'
mutant inflight-not-dirty session.go 'v.bits.Set(o.disk.Offset, o.disk.Length)' '_ = o.disk' TestR6WriteThatOnlyThePeerAnsweredIsDirty
mutant one-sided-not-dirty write.go 'o.vol.bits.Set(o.disk.Offset, o.disk.Length)' '_ = o.disk'
mutant flush-covers-too-much flush.go 'o.mark > v.durable {' 'v.settled > v.durable { o.mark = v.settled' TestFlushDoesNotCoverWhatCameWhileItRan
mutant peer-flush-not-awaited flush.go 'o.owed |= owedPeer' 'o.owed |= 0'
mutant detach-without-bitmap control.go 'stale && v.disk.HasData()' 'stale && false'
mutant read-ignores-writes conflict.go 'o.asks() == block.Read && !o.mends' 'o.asks() == block.Read && !o.mends; if reading { return false }' TestReadWaitsForTheWriteBeforeIt
mutant write-overtakes-read conflict.go 'return o.kind == opApplication && !reading && v.reads.overlaps(o)' 'return false'
mutant failed-disk-is-read write.go 'if o.err == nil && !v.disk.HasData() && !e.forward.on {' 'if false {' TestReadFromADiskThatHasFailedMeanwhile
mutant flush-beside-a-failed-one write.go 'o.disk.Op == block.Flush && !o.vol.disk.HasData()' 'false' TestFlushBesideOneThatFailed
mutant failed-disk-serves super.go 'v.failed = state.Failed, err' 'v.failed = was, err'
mutant failed-disk-excludes write.go 'if e.anyFailed() {' 'if false {' TestFailedDiskDoesNotExcludeTheHealthyPeer
mutant dropped-session-obeyed session.go 'e.session.closing && m.Kind != wire.Refuse' 'false' TestDroppedSessionIsDeaf
mutant promotion-before-record engine.go ' && e.record.Tenure == e.tenure && e.record.Primary == e.self' '' TestPromotionNeedsItsRecord
mutant promotion-overtakes-the-peers-writes submit.go ', e.peerOps > 0' '' TestPromotionWaitsForTheWritesOfTheLastPrimary
mutant hello-while-peer-writes hello.go 'atDisk := e.peerOps > 0 ||' 'atDisk :=' TestHelloWaitsForThePeersWrites
mutant target-not-durable syncend.go 'e.inSessionAfterSupers(agreed, func() { e.send(wire.Message{Kind: wire.Ack, ID: idSyncDone}) })' 'e.afterSupers(func() {})
	e.send(wire.Message{Kind: wire.Ack, ID: idSyncDone})'

# a Primary without a copy of its own
mutant R13-stays-in-the-set forward.go 'e.forward.on, e.forward.leaving, e.forward.lost = true, true, false' 'e.forward.on, e.forward.leaving, e.forward.lost = true, false, false; e.dropSession(errForward)' TestPrimaryGoesOnThroughItsPeer
mutant R14-keeper-marks-nothing keep.go 'v.bits.SetAll()' '_ = v' TestKeeperIsReadyWhenItsMarksAreDurable
mutant R14-marks-not-awaited keep.go 'if !e.pagesSaved(s.plan.full) {' 'if e.pagesSaved(s.plan.full); false {' TestKeeperIsReadyWhenItsMarksAreDurable
mutant R14-keeps-the-generation keep.go 'e.beginGenerations(s.plan.full)' '_ = s' TestKeeperIsReadyWhenItsMarksAreDurable
mutant forwarded-out-of-order forward.go 'return cmp.Compare(a.began, b.began)' 'return cmp.Compare(a.began, a.began)' TestWhatWaitsForTheKeeperGoesInOrder
mutant R14-old-answer-counts session.go 'e.forward.on && !e.flowing()' 'false' TestAnswerOfTheOldSessionDoesNotCount
mutant sent-while-on-the-wire forward.go 'case !o.sent:' 'case !o.sent || !e.flowing(): o.sent = false' TestAbortWaitsForWhatIsOnTheWire
mutant mend-without-the-range conflict.go '&& !o.mends' '' TestMendWaitsForChunksAndReads
mutant mend-on-a-cold-extent mend.go 'e.heat(o)' 'e.fetch(o)'

# a Primary that fills its own copy
mutant fill-beside-writes conflict.go 'if o.vol.blocks(o) {' 'if o.kind != opFill && o.vol.blocks(o) {' TestFillWaitsForTheWriteInFlight
mutant fill-counts-unflushed fill.go 'v.sync.acked = append(v.sync.acked, done)' 'v.bits.Clear(done.offset, done.length); v.sync.acked = append(v.sync.acked, done)' TestFilledChunksCountWhenTheyAreFlushed
mutant fill-forgets-what-went-alone forward.go 'o.vol.bits.Set(o.disk.Offset, o.disk.Length)' '_ = o.vol' TestWhatGoesAloneIsFetched
mutant filled-again-unsaid hello.go ' || e.unfinished()' '' TestFilledAgainIsInconsistentAgain
mutant back-before-it-is-durable fill.go 'e.inSessionAfterSupers(agreed, func() {
		e.forward.back = true
		e.ledgerNext()
	})' 'e.afterSupers(func() {}); e.forward.back = true; e.ledgerNext()' TestPrimaryFillsItsNewDisk
mutant keeper-that-lost-its-cache forward.go 'case e.session.theirs.Suspect && slices.Contains(e.forward.owed, true):' 'case false:' TestKeeperThatCrashedWithUnflushedWrites
mutant keeper-without-what-was-early forward.go 'case e.forward.gone:' 'case false:' TestBothDisksFailWithWhatWasAnsweredEarly

# the generations of a resync
mutant finish-keeps-the-generation syncend.go 'v.gen = v.gen.Finish()' '_ = v' TestWriteAfterALostFinishBeginsAGeneration
mutant finish-not-durable syncend.go 'e.inSessionAfterSupers(agreed, e.sendSyncDone)' 'defer e.afterSupers(func() {}); e.sendSyncDone()' TestSourceFinishesBeforeTheTarget
mutant begin-not-awaited syncbegin.go 'e.minting = true // whoever' '// whoever' TestWriteBesideTheBeginOfAResyncWaitsForItsGeneration
mutant resync-without-a-generation syncbegin.go 'case v.gen.Bitmap == 0:' 'case false:' TestWriteBesideTheBeginOfAResyncWaitsForItsGeneration
mutant full-resync-before-its-marks syncbegin.go '!e.pagesSaved(s.plan.full)' 'false' TestFullResyncIsMarkedOnDiskFirst
mutant full-resync-on-the-old-base syncbegin.go 'v.gen.Rebase(id), false' 'v.gen, false' TestFullResyncGoesOnWhereItBroke
mutant hello-before-it-is-durable hello.go 'v.super.gen.Words()' 'v.gen.Words()' TestFullResyncIsMarkedOnDiskFirst

# a resync that asks first
mutant equal-chunk-not-flushed synccompare.go 'e.chunkAcked(o)' 'o.vol.bits.Clear(c.offset, c.length); e.chunkAcked(o)' TestResyncLeavesOutWhatIsEqual
mutant first-difference-only synccompare.go 'last.offset + last.length - send[0].offset' 'send[0].length + 0*last.length' TestResyncLeavesOutWhatIsEqual
mutant unread-counts-as-equal synccompare.go 'send := []span{c.span}' 'send := []span(nil)' TestResyncSendsWhatIsNotTold

# a copy that is given up
mutant invalidate-in-the-set invalidate.go 'case !e.inSync(e.self):' 'case true:' TestInvalidatedCopyLeavesTheSetFirst
mutant invalidate-though-undecided invalidate.go 'case c.asked == e.record.Token:' 'case c.asked == e.record.Token:
		e.giveUpVolumes(c.volume)' TestInvalidateWithoutTheLedgersWord

# disks that hang, in the world where they do
world=${WORLD:-TestHangSeeds}
mutant hang-reads-into-old-memory stalled.go 'o.disk.Data = block.Aligned(len(o.disk.Data))' '_ = o' TestPrimaryLeavesAHangingDisk
mutant hang-memory-is-reused stalled.go 'o.req.Kept = true' '_ = o' TestPrimaryLeavesAHangingDisk
mutant hang-peers-memory-is-reused stalled.go 'o.buf = block.GetBuffer(len(o.disk.Data))' '_ = o' TestSecondaryLeavesAHangingDisk
mutant given-up-for-a-worse-copy forward.go 'e.peerServes() && e.alike' 'e.inSync(e.peer)' TestNothingIsGivenUpForAWorseCopy
mutant attach-forgets-the-log attach.go 'v.adopt(e.attach(i, c))' 'n := e.attach(i, c); c.Bitmap.ClearAll(); v.adopt(n)' TestSecondaryTakesADisk

# applications that are told of errors, in the world where they are
world=TestErrorSeeds
mutant R10-read-what-failed-without-a-quorum frozen.go 'e.alike && what&owedLedger == 0' 'e.alike' TestFrozenWriteThatWaitsForTheLedger
mutant frozen-write-that-is-settled-twice super.go 'o != nil && o.owed&owedSuper != 0' 'o != nil' TestFrozenWriteThatWaitsForItsGeneration

# copies that are promoted by force, in the world where they are
world=TestForceSeeds
mutant R20-force-leaves-no-mark mirror/genid/genid.go 'Mint(id).marked(true) }' 'Mint(id) }' TestForcedCopyIsApartFromTheOneBefore
mutant R20-force-heard-after-the-record control.go 'forced || v.doubt && force' 'forced' TestForcedCopyIsApartFromTheOneBefore
mutant R20-force-begins-no-generation control.go 'v.gen.Force(id)' 'v.gen' TestForcedCopyIsApartFromTheOneBefore
mutant discard-refused-beside-a-new-disk split.go 'case blank:' 'case blank + 100:' TestTheVictimHasANewDisk

# volumes that grow, in the world where they do
world=TestGrowSeeds
mutant shows-what-the-peer-cannot-hold resize.go '|| x.lead && !x.grown && !x.alone' '' TestResizeGrowsThePeerFirst
mutant grows-before-it-is-zero resize.go 'case !x.ready ||' 'case' TestResizeWaitsForItsOwnZeroes
mutant follows-without-a-mark size.go 'e.remake(v, size, true)' 'e.remake(v, size, false)' TestSmallerCopyFollows
mutant late-piece-forgotten resize.go 'x.ready || x.v.zeroing {' 'x.ready {' TestOnePieceAtATime
mutant late-piece-at-a-handshake size.go '(v.zeroing || busy' '(busy' TestLatePieceIsWaitedFor
mutant metadata-move-under-a-write remake.go 'waits := v.super.inFlight || v.page.inFlight || v.activity.inFlight' 'waits := false' TestMetadataMoveBesideWrites
mutant log-written-while-it-moves activity.go 'if v.activity.inFlight || v.fitTo > 0 ||' 'if v.activity.inFlight ||' TestMetadataMoveBesideWrites
mutant marks-lost-while-they-move remake.go 'v.bits.Version(i) == v.fitFrom[i]' 'true' TestMarksWhileMetadataMove
mutant alone-though-the-peer-counts resize.go 'case !e.inSync(e.self) || e.peerInSync():' 'case false:' TestResizeAloneIsTheLedgersWord
mutant alone-beside-a-session session.go 'x.alone && x.v.fitTo == 0' 'x.alone && false' TestResizeAlone
mutant promoted-beside-a-smaller-copy control.go 'e.session.repl == state.Established && e.sizesDiffer()' 'false' TestFollowerIsPromoted
mutant leader-waits-for-a-promoted-follower resize.go 'case x.runs() && !x.lead:' 'case false:' TestFollowerIsPromoted
mutant larger-disk-of-another-copy attach.go 'if !v.knows(c)' 'if false' TestDiskGrowsAfterItWasGivenUp
mutant shows-what-only-it-has remake.go 'e.alike = e.alike && !mark' '_ = mark' TestReadOfACopyThatFollows
mutant failed-disk-grows-unseen remake.go 'case err == nil:' 'case v.disk.HasData() && err == nil:' TestForwardingPrimaryHasGrown
mutant shrink-zeroes resize.go 'if x.zeroed < x.v.geo.SizeBytes {' 'if false {' TestShrinkCutsThePeerFirst
mutant cut-without-marks shrink.go 'stale := v.bits.NextStale(0); stale' 'stale := v.bits.NextStale(0); stale && false' TestShrinkCutsThePeerFirst
mutant cut-while-primary shrink.go 'case e.role == state.Primary:' 'case false:' TestShrinkIsRefused
mutant cut-unseen shrink.go 'e.highest() != x.order.Seen' 'false' TestShrinkIsRefused
mutant taken-behind-the-new-end peerwrite.go 'uint64(e.holds(v))' 'uint64(v.geo.SizeBytes)' TestNothingIsTakenBehindTheNewEnd
mutant primary-beside-a-smaller-peer resize.go 'if lead && cut && ' 'if lead && cut && false && ' TestPromotionEndsAShrink
mutant cut-alone shrink.go 'case s.phase == ended:' 'case false:' TestMayCutNow
mutant cut-of-what-is-not-in-line shrink.go 'case v.bits.Count() > 0 || t.Volumes[v.index].DirtyBlocks > 0:' 'case false:' TestShrinkIsRefused
mutant cut-of-a-copy-that-is-not-current shrink.go 'v.disk != state.UpToDate || !countsAsCurrent(t)' 'false' TestShrinkIsRefused
mutant metadata-move-over-themselves shrink.go 'case size > v.ceiling:' 'case false:' TestShrinkIsRefused
mutant cut-before-the-peer resizepeer.go 'if x.shrinks() && !x.marked {' 'if false {' TestShrinkCutsThePeerFirst
mutant marks-stay-after-a-shrink-that-ended shrink.go 'x.marked && x.shrinks() && x.v.fitTo == 0' 'false' TestPromotionEndsAShrink
mutant ring-keeps-what-is-cut-off remake.go 'firstBeyond(v.fitTo))' 'firstBeyond(1<<40))' TestShrinkCutsThePeerFirst
mutant leader-does-not-know-that-it-goes-on resize.go 'case x.shrinks() && !x.lead && x.v.fitTo > 0:' 'case false:' TestCommandBesideACut
mutant ring-made-anew-is-written-over remake.go 'v.al.Restated()' '' TestActivityLogGoesOnAfterARemake
mutant gap-after-a-ring-that-was-refused remake.go 'case errors.Is(err, ErrNoRoom), ' 'case errors.Is(err, ErrNoRoom) && func() bool { v.al.Restated(); return true }(), ' TestActivityLogGoesOnAfterARemake
mutant copy-that-was-not-cut-fails remake.go ', errors.Is(err, ErrWouldCut):' ':' TestCutRefusedByTheDisk
mutant cut-keeps-hot-extents remake.go 'v.al.Cut(firstBeyond(v.geo.SizeBytes))' '' TestShrinkCutsThePeerFirst

# protocols A and B, in a world of theirs
world=TestProtocolSeeds
mutant B-answers-unheard early.go 'return o.copied && o.heard' 'return o.copied'
mutant B-answers-fua-early early.go 'case p == state.ProtocolB && o.disk.Flags&block.FUA == 0:' 'case p == state.ProtocolB:' TestProtocolBFUAIsDurableOnBoth
mutant B-flush-overtakes-writes early.go 'if v.early == 0 ||' 'if true ||' TestFlushWaitsForTheAcksOfWhatWasAnswered
mutant early-without-a-copy early.go 'o.disk.Data = o.buf.Bytes(n)' '_ = o'
mutant early-without-a-lease early.go ' || !e.hasLease() {' ' {'
mutant early-beyond-the-window early.go 'e.early.bytes+o.disk.Length <= e.set.CongestionFill' 'true'
mutant early-in-a-dropped-session early.go 'e.session.closing || e.session.resync.ending' 'e.session.resync.ending' TestNothingIsAnsweredEarlyInADroppedSession
mutant early-at-the-end-of-a-resync early.go 'e.session.closing || e.session.resync.ending' 'e.session.closing'
mutant resync-ends-beside-early-writes syncend.go 'if e.early.ops > 0 {' 'if false {' TestNothingIsAnsweredEarlyAtTheEndOfAResync
mutant early-op-is-settled early.go 'e.count(o, nil)
	e.emit' 'o.vol.settled++; e.count(o, nil)
	e.emit' TestProtocolAFlush
mutant A-flush-counts-at-a-lost-peer session.go 'if o.kind == opApplication && !o.early {' 'if o.kind == opApplication {' TestProtocolAFlushOfALostPeerCoversNothing
mutant A-flush-out-of-order ordered.go 'o.ordered && e.peerOps > 1' 'false' TestSecondaryKeepsTheOrderOfAFlush
mutant A-FUA-out-of-order early.go 'm.Flags |= wire.Ordered //' '//' TestProtocolAFUAKeepsItsPlace
mutant A-writes-overtake-a-flush ordered.go 'e.parked.n > 0 || e.barrier ||' '' TestSecondaryKeepsTheOrderOfAFlush
mutant demoted-beside-early-writes control.go ' || e.early.ops > 0 {' ' {' TestDemotionWaitsForWhatWasAnsweredEarly
mutant the-looser-protocol early.go 'return e.set.Protocol.Stricter(s.theirs.Protocol)' 'return e.set.Protocol' TestTheStricterProtocolCounts

# a side that gives up, in the world where it does so for no reason
world=TestGiveUpSeeds
mutant given-up-against-the-ledger judge.go 'if gen.given && gen.action != want {' 'if gen.given && gen.action != want { return decision{action: gen.action, full: gen.full}
	}
	if false {' TestGivingUpInAHandshake
mutant given-up-by-both split.go 'a == nil || b == nil || a.GivesUp == b.GivesUp' 'a == nil || b == nil || !a.GivesUp && !b.GivesUp' TestGivingUpInAHandshake
mutant given-up-for-an-empty-copy split.go 'default: // a new copy' 'case genid.SourceFullNew, genid.TargetFullNew:
			d.full[i] = true
		default: // a new copy' TestGivingUpInAHandshake
mutant given-up-by-a-primary control.go 'e.split.givesUp = false
	e.role' 'e.role' TestWhoIsPromotedGivesUpNoMore
mutant bitmaps-of-no-use split.go 'd.full[i] = true' '_ = i' TestGivingUpInAHandshake
mutant policy-against-the-ledger split.go 'o.Victim != "" && sameRecord' 'o.Victim == "-" && sameRecord' TestPoliciesInAHandshake
mutant undone-unmarked undo.go 'if ev.Marks[i].PageEmpty(p) {' 'if true {' TestAnUndoneCopyIsWhatItWas
mutant undone-in-the-set undo.go 'case e.inSync(e.self):' 'case false:' TestWhatIsNotUndone
mutant undone-before-its-marks undo.go '!e.bitmapsSaved()' 'false' TestAnUndoneCopyIsWhatItWas

# an online verify, in the world where copies rot
world=${WORLD:-TestRotSeeds}
mutant verify-believes-the-first-look verifycheck.go 'if c.locked {
		e.confirmed' 'if true {
		e.confirmed'
mutant verify-looks-again-without-a-lock verify.go 'if l.locked {' 'o.check.locked = false
	if false {'
mutant verify-lock-does-not-wait verify.go 'if l.locked {' 'if false {'
mutant verify-does-not-look-again verifycheck.go 'x.again = append(x.again, look{s, true})' '_ = s'
mutant verify-skips-after-a-break verifycheck.go 'x.cursor = x.reached(e)' '_ = x.cursor' TestVerifyGoesOnAfterABreak
mutant verify-beside-a-primary peerwrite.go 'e.verify.round++' '_ = m' TestVerifyOfASecondaryYieldsToAPrimary
mutant verify-answered-by-a-primary verifyanswer.go ' && e.role != state.Primary' ' && e.role <= state.Primary' TestVerifyIsAnswered
mutant verify-does-not-mark verifyrepair.go 'o.vol.bits.Set(s.offset, s.length)' '_ = s' TestVerifyMarksADifferenceBeforeItIsTold
mutant verify-tells-before-it-marks verifyrepair.go 'if !e.marksSaved() {' 'if false {' TestVerifyMarksADifferenceBeforeItIsTold
mutant repair-unmarked-on-the-ack verifyrepair.go 'e.verify.written = append(e.verify.written, ' 'o.vol.bits.Clear(o.disk.Offset, o.disk.Length)
	e.verify.written = append(e.verify.written, ' TestVerifyRepairsFromThePrimary
mutant demoted-beside-a-repair control.go 'e.repairing() ||' '' TestDemotionWaitsForARepair
mutant verify-mends-nothing verifymend.go 'return e.verify.order.Repair &&' 'return false &&'
mutant verify-ends-before-a-mend verify.go 'if x.flight+x.mending > 0 ||' 'if x.flight > 0 ||' TestVerifyMendsWhatCannotBeReadHere
mutant demoted-beside-a-mend verifyrepair.go 'if e.verify.mending > 0 {' 'if false {' TestDemotionWaitsForAMend
mutant verify-mends-without-bound verify.go 'x.flight+x.mending < e.verifyDepth()' 'x.flight < e.verifyDepth()' TestMendsBoundAVerify
mutant verify-waits-for-the-last-word verify.go ' && (e.role != state.Primary || !e.hasLease())' '' TestVerifyOfANewPrimary
mutant handshake-ends-for-each-mark hello.go '(said == 0 || e.peerInSync())' 'true' TestMarksThatGrowDoNotEndTheHandshake
mutant ahead-of-a-peer-that-is-not-behind early.go 'case o.disk.Op != block.Flush && o.disk.Length > e.set.CongestionFill:' 'case false:' TestWhatIsLargerThanTheWindow
mutant frozen-wakes-nobody frozen.go 'e.wake(v) // what' '// what' TestWhatWaitsForAColdWriteFailsToo
mutant frozen-until-the-tick submit.go 'e.failing && !e.hasLease()' 'e.failing' TestFrozenIOFailsWhenItIsAskedTo
mutant bitmap-all-at-once syncbegin.go 'left < 0' 'false' TestBitmapsAreToldInPortions
mutant shrink-marks-its-edge shrink.go 'from := (x.size + dirty.BlockBytes - 1) / dirty' 'from := x.size / dirty' TestShrinkToTheMiddleOfABlock
mutant bad-block-of-a-keeper-costs-its-chunk forward.go 'o.vol.sync.unread(e.now)' '' TestFillFromAKeeperWithABadBlock

# pages of the bitmap, in the world that has several
world=${WORLD:-TestWideSeeds}
mutant pages-that-are-not-written activity.go 'Payload: payload}' 'Payload: payload[:dirty.PageBytes]}' TestKeeperOfALargeVolumeIsReadySoon
mutant pages-saved-as-they-are-now activity.go 'v.bits.Saved(w.first+i, version)' '_ = version; v.bits.Saved(w.first+i, v.bits.Version(w.first+i))' TestKeeperOfALargeVolumeIsReadySoon
mutant pages-of-the-first-alone activity.go 'v.bits.Page(first+i, ' 'v.bits.Page(first, ' TestKeeperOfALargeVolumeIsReadySoon
exit $missed
