package auth

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A slowHash takes as long as a test says, of virtual time.
type slowHash struct {
	takes   time.Duration
	threads int
	right   bool
}

func (h *slowHash) verify([]byte) bool { time.Sleep(h.takes); return h.right }
func (h *slowHash) processors() int    { return h.threads }

func usersOf(t *testing.T, limits UsersLimits, byName map[string]hash) *Users {
	require.NoError(t, limits.complete())
	u := &Users{turns: newTurns(limits)}
	list := &userList{byName: byName}
	for _, h := range byName {
		list.all = append(list.all, h)
	}
	u.list.Store(list)
	return u
}

func login(ctx context.Context, u *Users, name string) error {
	_, err := u.Authenticate(ctx, &broker.Credentials{Client: broker.ClientInfo{Username: name}, HasUsername: true, Password: []byte("x")})
	return err
}

func TestFewPasswordsAreCheckedAtOnceFewWaitAndOthersAreRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := usersOf(t, UsersLimits{Checks: 2, Waiting: 3, Patience: 5 * time.Second}, map[string]hash{"alice": &slowHash{takes: time.Second, right: true}})
		done := make(chan error, 10)
		for range 10 { // known and unknown alike
			go func() { done <- login(t.Context(), u, "alice") }()
		}
		synctest.Wait()
		require.Equal(t, UsersStats{Refused: 5, Running: 2, Waiting: 3}, u.Stats())
		for range 5 {
			require.Equal(t, packet.ServerBusy, (<-done).(*broker.Denied).Code)
		}
		began := time.Now()
		require.ErrorIs(t, login(t.Context(), u, "mallory"), errBusy)
		require.Zero(t, time.Since(began))
		for range 5 {
			require.NoError(t, <-done)
		}
		require.Equal(t, 3*time.Second, time.Since(began))
		require.Equal(t, UsersStats{Refused: 6, Checked: 5}, u.Stats())
	})
}

func TestNobodyWaitsForeverToHaveAPasswordChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := usersOf(t, UsersLimits{Checks: 1, Patience: time.Second}, map[string]hash{"slow": &slowHash{takes: time.Minute}})
		go login(t.Context(), u, "slow")
		synctest.Wait()
		began := time.Now()
		require.ErrorIs(t, login(t.Context(), u, "slow"), errBusy)
		require.Equal(t, time.Second, time.Since(began))
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, login(gone, u, "slow"), context.Canceled)
		require.Equal(t, UsersStats{Refused: 1, Running: 1}, u.Stats())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, UsersStats{Refused: 1, Checked: 1}, u.Stats())
	})
}

func TestAHashWithThreadsTakesTheirProcessorsAndNotMoreThanThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := usersOf(t, UsersLimits{Checks: 4, Patience: time.Minute}, map[string]hash{
			"one": &slowHash{takes: time.Second, threads: 1}, "three": &slowHash{takes: time.Second, threads: 3},
			"many": &slowHash{takes: time.Second, threads: 255},
		})
		for _, name := range []string{"three", "one", "one", "many"} {
			go login(t.Context(), u, name)
			synctest.Wait()
		}
		require.Equal(t, 2, u.Stats().Running)
		require.Equal(t, 2, u.Stats().Waiting)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		require.Equal(t, UsersStats{Checked: 2, Running: 1, Waiting: 1}, u.Stats(), "many waits for all")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, UsersStats{Checked: 4}, u.Stats())
	})
}

func TestLimitsOfUsersAreThoseOfTheMachineUnlessSaid(t *testing.T) {
	var l UsersLimits
	require.NoError(t, l.complete())
	require.GreaterOrEqual(t, l.Checks, 1)
	require.Less(t, l.Waiting, 64, "others have places in the broker besides")
	require.Positive(t, l.Patience)
	require.Error(t, (&UsersLimits{Waiting: -1}).complete())
	file := filepath.Join(t.TempDir(), "users")
	require.NoError(t, os.WriteFile(file, []byte("a:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="), 0o600))
	_, err := OpenUsersLimited(file, UsersLimits{Checks: -1})
	require.ErrorContains(t, err, "negative")
	u, err := OpenUsersLimited(file, UsersLimits{Checks: 3})
	require.NoError(t, err)
	require.Equal(t, 3, u.turns.limits.Checks)
}

// Users who are removed while they wait do not get in by the list of before.
func TestAPasswordIsCheckedWithTheUsersOfItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alice := &slowHash{takes: time.Second, right: true}
		u := usersOf(t, UsersLimits{Checks: 1, Patience: time.Minute}, map[string]hash{"alice": alice})
		done := make(chan error, 2)
		for range 2 {
			go func() { done <- login(t.Context(), u, "alice") }()
			synctest.Wait()
		}
		others := &slowHash{takes: time.Second, right: true}
		u.list.Store(&userList{byName: map[string]hash{"bob": others}, all: []hash{others}})
		require.NoError(t, <-done)
		require.ErrorIs(t, <-done, ErrNotMine)
	})
}
