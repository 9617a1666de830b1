package broker

import (
	"context"
	"errors"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// loginBurst is how many seconds' worth of failed logins an address has at once.
const loginBurst = 300

// failedLogins are those of one address that are not yet forgiven. Its zero value
// is of an address that has none.
type failedLogins struct {
	n  float64
	at time.Time // when n was right
}

// maxFailedLogins returns how many of them an address may have.
func maxFailedLogins(perSecond float64) float64 { return max(1, perSecond*loginBurst) }

func (f *failedLogins) forgive(perSecond float64, now time.Time) {
	if perSecond <= 0 { // no limit any more
		*f = failedLogins{}
		return
	}
	f.n = max(0, f.n-perSecond*max(0, now.Sub(f.at).Seconds()))
	f.at = now
}

// errFailedLogins refuses a client whose address has had too many.
var errFailedLogins error = &Denied{quotaLogins.code, quotaLogins.text}

// mayLogIn reports whether the client's address may try a password or a token. A
// refusal is counted.
//
// It is asked again in the call of the Authenticator: of those of one address that
// wait for it together no more than are called at once can fail above the limit, and
// what they fail is not forgiven sooner for it.
func (cn *conn) mayLogIn() bool {
	b, u := cn.b, cn.place.addr
	if u == nil || cn.standing == nil || !cn.standing.claims {
		return true
	}
	b.mu.Lock()
	perSecond := b.admission.q.FailedLogins
	u.logins.forgive(perSecond, time.Now())
	ok := u.logins.n <= maxFailedLogins(perSecond)-1
	b.mu.Unlock()
	if !ok {
		b.count.aboveQuota[quotaLogins.index].Add(1)
	}
	return ok
}

// loginEnded notes a login that was refused for what the client has shown. That the
// broker is busy, or a hook failed, is not the client's doing.
func (cn *conn) loginEnded(err error) {
	d, ok := errors.AsType[*Denied](err)
	if !ok || cn.standing == nil || !cn.standing.claims {
		return
	}
	switch d.Code {
	case packet.ServerBusy, packet.ServerUnavailable, packet.QuotaExceeded, packet.ConnectionRateExceeded, packet.BadAuthenticationMethod:
		return
	}
	b := cn.b
	b.count.failedLogins.Add(1)
	u := cn.place.addr
	if u == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if perSecond := b.admission.q.FailedLogins; perSecond > 0 {
		u.logins.forgive(perSecond, time.Now())
		u.logins.n++
	}
}

// logIn calls f, which asks the Authenticator, if the client's address may try.
func logIn[T any](cn *conn, f func(context.Context) (T, error)) (T, error) {
	return call(cn.link.Context(), &cn.b.authHooks, "authenticator", func(ctx context.Context) (T, error) {
		if !cn.mayLogIn() {
			var none T
			return none, errFailedLogins
		}
		v, err := f(ctx)
		cn.loginEnded(err) // before another call has the place
		return v, err
	})
}
