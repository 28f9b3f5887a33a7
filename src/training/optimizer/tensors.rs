//! The update of one variable in tensor operations, for devices whose memory can't be reached from here.

use candle_core::{Result, Tensor, Var};

use super::{ADAGRAD_EPSILON, ADAMW_EPSILON, Formula, Optimizer};

impl Formula {
    pub(super) fn by_tensors(&self, var: &Var, slots: &mut [Tensor], grad: &Tensor) -> Result<()> {
        let w = var.as_tensor().detach();
        let grad = (grad.detach() * self.scale)?;
        let decayed =
            |grad: &Tensor| if self.weight_decay == 0.0 { Ok(grad.clone()) } else { grad + &(&w * self.weight_decay)? };
        let direction = match self.rule {
            Optimizer::Sgd { momentum, nesterov } => {
                let grad = decayed(&grad)?;
                slots[0] = ((&slots[0] * momentum)? + &grad)?;
                if nesterov { (grad + (&slots[0] * momentum)?)? } else { slots[0].clone() }
            }
            Optimizer::AdamW { beta_1, beta_2 } => {
                slots[0] = ((&slots[0] * beta_1)? + (&grad * (1.0 - beta_1))?)?;
                slots[1] = ((&slots[1] * beta_2)? + (grad.sqr()? * (1.0 - beta_2))?)?;
                let deviation = ((&slots[1] * self.corrections[1])?.sqrt()? + ADAMW_EPSILON)?;
                decayed(&((&slots[0] * self.corrections[0])? / deviation)?)?
            }
            Optimizer::AdaGrad => {
                let grad = decayed(&grad)?;
                slots[0] = (&slots[0] + grad.sqr()?)?;
                (grad / (slots[0].sqrt()? + ADAGRAD_EPSILON)?)?
            }
        };
        var.set(&(w - (direction * self.rate)?)?)
    }
}
